"""The command that starts the processes of an update, and their environment."""

import base64
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from knowrl_core.errors import InputError
from knowrl_core.places import expanded
from knowrl_core.rl.distributed import folder as words
from knowrl_core.rl.job import UpdateJob
from knowrl_core.worker.process import free_port

RANK: Final = "knowrl_core.rl.distributed.rank"
_LOOPBACK: Final = {"linux": "lo", "darwin": "lo0"}
_PASSED_ON: Final = ("DS_", "OMP_", "GLOO_", "NCCL_", "CUDA_", "TOKENIZERS_", "HF_HUB_OFFLINE")
"""Beginnings of the environment variables that other nodes get. Not all of them: some are secret."""


def environment(job: UpdateJob) -> dict[str, str]:
    """The environment of the launcher, which its processes inherit."""
    config = job.rl.deepspeed
    threads = max(1, torch.get_num_threads() // config.processes)
    # DeepSpeed's runner puts all variables of MLflow on the command lines of other nodes, where anybody can read them.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    variables = {**own, "OMP_NUM_THREADS": str(threads)}
    if job.device == "cpu":
        variables["DS_ACCELERATOR"] = "cpu"
    if config.hostfile is None and sys.platform in _LOOPBACK:
        variables["GLOO_SOCKET_IFNAME"] = _LOOPBACK[sys.platform]
    return variables


def passed_on(variables: Mapping[str, str]) -> str:
    """The part of the environment that other nodes get, in the form of DeepSpeed's environment file."""
    return "".join(f"{name}={value}\n" for name, value in variables.items() if name.startswith(_PASSED_ON))


def launcher(job: UpdateJob, folder: Path) -> list[str]:
    """The command that starts ``rank`` in all processes.

    Raises:
        InputError: There are fewer devices than processes.
    """
    config = job.rl.deepspeed
    rank = [RANK, *(str(folder / name) for name in (words.JOB, words.RESULT, words.PROGRESS))]
    common = [f"--master_port={free_port()}", "--no_local_rank", "-q", "--module", *rank]
    if config.hostfile is not None:
        hosts = ["--hostfile", str(expanded(config.hostfile).absolute()), "--num_gpus", str(config.processes)]
        return [sys.executable, "-u", "-m", "deepspeed.launcher.runner", *hosts, *common]
    world = base64.urlsafe_b64encode(json.dumps({"localhost": _devices(job)}).encode()).decode()
    # What the runner itself starts on one node.
    local = [f"--world_info={world}", "--master_addr=127.0.0.1"]
    return [sys.executable, "-u", "-m", "deepspeed.launcher.launch", *local, *common]


def _devices(job: UpdateJob) -> list[str]:
    """A device for each process of this node, out of those that may be seen: the launcher sets anew which may."""
    wanted = job.rl.deepspeed.processes
    if job.device == "cpu":
        return [str(number) for number in range(wanted)]
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        seen = [str(i) for i in range(torch.cuda.device_count())]
    else:
        seen = [name for name in listed.split(",") if name]
    if wanted > len(seen):
        raise InputError(
            f"rl.deepspeed.processes is {wanted}, expected at most the {len(seen)} CUDA devices here: one a process",
            hint="Lower rl.deepspeed.processes, or check nvidia-smi and CUDA_VISIBLE_DEVICES.",
        )
    return seen[:wanted]
