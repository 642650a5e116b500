"""What DeepSpeed's launcher is told."""

import base64
import json
from pathlib import Path

import pytest
import torch

from knowrl_core.config.rl import DeepSpeedConfig, RLConfig
from knowrl_core.errors import InputError
from knowrl_core.rl import UpdateJob
from knowrl_core.rl.distributed import command


def make(device="cpu", **options):
    return UpdateJob(
        policy_dir=Path("policy"),
        reference_dir=None,
        optimizer_dir=None,
        output_dir=Path("output"),
        rollouts=(),
        rl=RLConfig(trainer="deepspeed", deepspeed=DeepSpeedConfig(**options)),
        device=device,
        shuffle_seed=0,
    )


def devices(job):
    world = next(part for part in command.launcher(job, Path("/job")) if part.startswith("--world_info="))
    return json.loads(base64.urlsafe_b64decode(world.removeprefix("--world_info=")))["localhost"]


def test_one_node():
    parts = command.launcher(make(processes=2), Path("/job"))
    assert "deepspeed.launcher.launch" in parts
    assert "--master_addr=127.0.0.1" in parts
    assert parts[-4:] == [command.RANK, "/job/job.json", "/job/result.json", "/job/progress.jsonl"]
    assert devices(make(processes=2)) == ["0", "1"]


def test_several_nodes(tmp_path):
    parts = command.launcher(make(processes=8, hostfile=str(tmp_path / "hosts")), Path("/job"))
    assert "deepspeed.launcher.runner" in parts
    assert parts[parts.index("--hostfile") + 1] == str(tmp_path / "hosts")
    assert parts[parts.index("--num_gpus") + 1] == "8"


def test_devices_are_those_that_may_be_seen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices(make("cuda", processes=2)) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5")
    assert devices(make("cuda", processes=2)) == ["4", "GPU-5"]
    with pytest.raises(InputError, match="processes is 3, expected at most the 2 CUDA devices"):
        devices(make("cuda", processes=3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="processes is 1, expected at most the 0 CUDA devices"):
        devices(make("cuda", processes=1))


def test_the_environment(monkeypatch):
    for name, value in {"NCCL_DEBUG": "INFO", "API_TOKEN": "secret", "OMP_NUM_THREADS": "7"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    variables = command.environment(make(processes=2))
    assert (variables["OMP_NUM_THREADS"], variables["DS_ACCELERATOR"]) == ("2", "cpu")
    assert "DS_ACCELERATOR" not in command.environment(make("cuda"))
    passed = command.passed_on(variables)
    assert "NCCL_DEBUG=INFO\n" in passed
    assert "secret" not in passed
