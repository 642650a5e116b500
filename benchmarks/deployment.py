"""Does a database with many runs slow the start of the next, and how much memory do idle services hold?

    .venv/bin/pip install --constraint requirements.lock --editable '.[dev]'
    .venv/bin/python benchmarks/deployment.py

The services of docker-compose.yml run as processes (PostgreSQL behind Prefect and MLflow). The time from scheduling a
flow run to the first stage of its run is taken a few times with an empty database, then many smoke runs are done, then
it is taken again. ``--json FILE`` takes the numbers.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.compare import out
from knowrl_core.storage.layout import RunPaths, StageKey
from scripts.compose_file import read_env_file
from scripts.compose_local import REPOSITORY, LocalCompose
from scripts.new_env import new_env

FIRST = StageKey(0, "generate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code, 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=50, help="runs in the database (50)")
    parser.add_argument("--repeat", type=int, default=5, help="starts before and after (5)")
    parser.add_argument("--memory", type=float, default=1.5, help="GB that idle services may hold (1.5)")
    parser.add_argument("--slower", type=float, default=1.25, help="how many times slower a start may be (1.25)")
    parser.add_argument("--json", type=Path, help="file that takes the numbers")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="knowrl-deployment-"))
    folder.chmod(0o711)  # under root, PostgreSQL runs as a user of its own
    (folder / "env").write_text(new_env((REPOSITORY / ".env.example").read_text()))
    try:
        with LocalCompose(folder / "state", read_env_file(folder / "env"), free_ports=True) as services:
            time.sleep(30)
            idle = services.memory()
            before = [_start(services, folder, f"before-{n}") for n in range(options.repeat)]
            for number in range(options.runs):
                _start(services, folder, f"filling-{number}")
            after = [_start(services, folder, f"after-{n}") for n in range(options.repeat)]
            held = services.memory()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratio = statistics.median(after) / statistics.median(before)
    total = sum(idle.values()) / 1e9
    found = {
        "cpus": psutil.cpu_count(), "runs": options.runs, "idle_bytes": idle, "held_bytes": held,
        "before_seconds": before, "after_seconds": after, "ratio": ratio,
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    out.print("idle services, MB: " + ", ".join(f"{name} {size / 1e6:.0f}" for name, size in idle.items()))
    out.print(f"all of them: {total:.2f} GB; after {options.runs} runs {sum(held.values()) / 1e9:.2f} GB")
    for name, times in (("empty database", before), (f"{options.runs} runs later", after)):
        out.print(
            f"scheduled to first stage, {name}: median {statistics.median(times):.1f} s "
            f"({min(times):.1f} to {max(times):.1f})"
        )
    out.print(f"ratio of the medians: {ratio:.2f}")
    return 1 if total > options.memory or ratio > options.slower else 0


def _start(services: LocalCompose, folder: Path, name: str) -> float:
    """Do a smoke run of one iteration; seconds from scheduling it to its first stage."""
    config = {
        "run": {"root": str(folder / "runs"), "iterations": 1},
        "introspection": {"calls_per_label": 3},
        "evaluation": {"probe_limit": 8, "frozen_limit": 6},
    }
    command = [sys.executable, "-m", "prefect", "deployment", "run", "knowrl/train", "--watch"]
    command += ["-p", "profile=smoke", "-p", f"run={name}", "-p", f"config={json.dumps(config)}"]
    stage = RunPaths(folder / "runs", name).stage(FIRST)
    begin = time.perf_counter()
    took = None
    with subprocess.Popen(
        command, env=services.environment("worker"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            if took is None and stage.parent.exists():
                took = time.perf_counter() - begin
            time.sleep(0.02)
    if process.returncode or took is None:
        raise RuntimeError(f"run {name} ended with {process.returncode}: see {services.log('worker')}")
    return took


if __name__ == "__main__":
    sys.exit(main())
