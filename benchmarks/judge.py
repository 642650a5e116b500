"""`knowrl judge` on a stream of lines, beside its engine asked for the same tasks directly and in one batch.

    .venv/bin/pip install --constraint requirements.lock --editable '.[dev]'
    .venv/bin/python benchmarks/judge.py --json judge.json

1,000 different tasks, SmolLM2-135M-Instruct, profile `cpu`. One side is the command: tasks go to its standard input as
JSON lines, and the time runs from the first line written to the last answer read, with parsing, chunks, the model
worker, votes and JSON in between. The other is what cannot be saved: the engine's own call with all prompts, which are
rendered before the time runs. Each side has a process of its own with as many threads, and has answered something
before; how long it takes to load libraries and the model stands in a column by itself. `peak` counts a side's processes
together, the one that measures included.

Exits with 1 when an answer is missing, wrong or out of order, or when the command takes more than ``--bound`` times as
long as the engine.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich import box
from rich.table import Table

from benchmarks.compare import Repeated, compare, out, write_json
from benchmarks.judge_sides import Settings, build_command, build_engine_alone
from benchmarks.measure import Measured, Side, Worker
from knowrl_core.config.system import ModelConfig
from knowrl_core.models.resolve import resolve_model
from knowrl_core.worker.client import ENVIRONMENT

COMMAND, ENGINE = "command", "engine"
BUILD: dict[str, Callable[[Settings], Side]] = {COMMAND: build_command, ENGINE: build_engine_alone}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    options = _parse(arguments)
    resolve_model(ModelConfig(path=options.model))  # its conversion on first use is no part of loading it
    for name, value in ENVIRONMENT.items():  # both sides wait alike for the threads of the other and of the machine
        os.environ.setdefault(name, value)
    settings = Settings(options.model, options.mode, options.lines, options.threads)
    runs: dict[str, list[Measured[int]]] = {name: [] for name in BUILD}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(build, settings)) for name, build in BUILD.items()}
        loading = {name: float(worker.call("loading")) for name, worker in workers.items()}
        for _ in range(options.repeat):
            for name, worker in workers.items():
                runs[name].append(worker.measure("run"))
        found = {name: Repeated(worker.label, tuple(runs[name])) for name, worker in workers.items()}
    ours, peer = found[COMMAND], found[ENGINE]
    ratio = ours.seconds / peer.seconds
    out.print(_table(settings, found, loading))
    out.print(f"the command takes {ratio:.2f} times as long as its engine alone")
    rates = settings.lines / ours.seconds, settings.lines / peer.seconds
    rows = compare(f"judge {settings.lines} lines, {settings.mode}", peer.label, ours, peer, rates, unit="lines/s")
    write_json(options.json, rows)
    whole = all(run.report == settings.lines for side in found.values() for run in side.runs)
    if not whole:
        out.print(f"got {[run.report for run in ours.runs]} right lines from the command, expected {settings.lines}")
    return 0 if whole and (options.bound is None or ratio <= options.bound) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--lines", type=int, default=1_000, help="lines (1000)")
    add("--mode", choices=("constrained", "free"), default="constrained", help="verdict.mode (constrained)")
    add("--repeat", type=int, default=1, help="repetitions (1)")
    add("--threads", type=int, default=2, help="threads of each side (2)")
    add("--bound", type=float, help="most times as long (any)")
    add("--model", default="smollm2-135m-instruct", help="alias or folder (smollm2-135m-instruct)")
    add("--json", type=Path, metavar="FILE", help="write the comparison here")
    return parser.parse_args(arguments)


def _table(settings: Settings, found: dict[str, Repeated[int]], loading: dict[str, float]) -> Table:
    title = f"{settings.lines:,} tasks, {settings.mode}, {settings.threads} threads"
    table = Table("side", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("seconds", "lines/s", "peak MB", "s to load"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, side in found.items():
        rate = settings.lines / side.seconds
        table.add_row(side.label, f"{side.seconds:.1f}", f"{rate:.1f}", f"{side.peak:.0f}", f"{loading[name]:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
