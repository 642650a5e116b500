"""Start the real command in processes of its own, and compare what it leaves."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from flows.cli.environment import OWNER
from knowrl_core.storage.files import sha256_file
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.worker.client import MODULE

KNOWRL = [sys.executable, "-m", "flows.cli.main"]
TINY = [
    "--set=introspection.calls_per_label=3",
    "--set=evaluation.probe_limit=8",
    "--set=evaluation.frozen_limit=6",
    "--set=tracking.enabled=false",
]
STEPS = "--set=run.seed=9"
"""With this seed the tiny random model takes steps in every iteration and has its best one after iteration 0. That is
luck, and a change of a prompt changes it: look for another seed when a test that needs it says so."""


def knowrl(*arguments, home, check=None, preexec_fn=None, **environment):
    """Run the command to its end."""
    done = subprocess.run(
        [*KNOWRL, *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=1500,
        preexec_fn=preexec_fn,
        env=environment_of(home, **environment),
    )
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}, expected {check}\n{done.stdout}\n{done.stderr}"
    return done


def environment_of(home, **extra):
    """An environment with a Prefect home and a user's state of its own."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {**base, "PREFECT_HOME": str(home), "XDG_STATE_HOME": str(Path(home, "state")), **extra}


def start(*arguments, home, log, **environment):
    """Start the command in a process group of its own."""
    with Path(log).open("wb") as out:
        return subprocess.Popen(
            [*KNOWRL, *arguments],
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=environment_of(home, **environment),
        )


def wait_for(condition, *, process, timeout=300, what="the condition"):
    """Poll until it holds; fails if the process ends first."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, f"the process ended with {process.returncode} before {what}"
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(0.002)


def belonging(pid):
    """Processes that a ``knowrl`` process started: its model worker, and Prefect's ephemeral server."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get(OWNER, "").startswith(f"{pid}:") and process.pid != pid
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return found


def worker_of(pid):
    """The model worker of a ``knowrl`` process, or None."""
    return next((item for item in belonging(pid) if MODULE in item.cmdline()), None)


def resume_command(text):
    """The arguments of the command that a message says to go on with."""
    found = re.findall(r"Go on with: \S*knowrl (resume .*)$", text, re.MULTILINE)
    assert len(found) == 1, text
    return shlex.split(found[0])


def kill_group(process):
    """SIGKILL the whole process group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def in_stage(paths: RunPaths, key: StageKey):
    """A condition: the stage has begun and is not committed."""
    return lambda: paths.stage(key).with_name(f".{key.stage}.partial").exists()


def artifacts(folder: Path) -> dict[str, str]:
    """sha256 of every Parquet file and checkpoint file of a run."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted((folder / "iterations").rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def manifests(folder: Path) -> dict[str, str]:
    """sha256 of every manifest of a run."""
    return {
        path.parent.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted((folder / "iterations").rglob("manifest.json"))
    }
