"""Runs of the smoke profile under random faults, gone on with and compared with an uninterrupted run.

    .venv/bin/pip install --constraint requirements.lock --editable '.[dev]'
    .venv/bin/python benchmarks/faults.py --fault kill --rounds 200 --json faults.json

Each round starts a run, lets a fault happen at a random moment, and gives the same command again until all stages are
committed (after exit code 4 with ``--repair``, as the message says). It passes if

- the artifacts are byte-identical to those of the uninterrupted run,
- no stage that was committed before the fault was done again (where the fault did not damage it),
- every attempt that did not end well said so with a documented exit code and a next step, without a traceback,
- no process of the run is left.

Real servers take part: Prefect and MLflow as processes on loopback. Exits with 1 when a round does not pass.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from benchmarks.compare import out
from benchmarks.fault_kinds import KINDS, UnavailableError
from benchmarks.fault_scene import Scene

ATTEMPTS = 8
"""Most times that the command is given in a round."""

CODES = {0, 1, 3, 4, 130, -9, -15}
"""Documented exit codes, and ends by signal."""


@dataclass(slots=True)
class Round:
    """What happened in one round."""

    fault: str
    number: int
    moment: float
    """Seconds after the start at which the fault happened."""
    detail: str = ""
    """What it hit."""
    codes: list[int] = field(default_factory=list)
    """Exit codes of all attempts."""
    repaired: bool = False
    resume_seconds: float = 0.0
    """From the first attempt after the fault to the end."""
    problems: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the rounds; returns the exit code."""
    options = _parse(arguments)
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="knowrl-faults-", dir=options.folder) as folder:
        scene = Scene(Path(folder), options.iterations)
        try:
            scene.begin()
            out.print(f"an uninterrupted run: {len(scene.reference)} files, {scene.seconds:.1f} s")
            for name in options.fault:
                for number in range(options.rounds):
                    try:
                        played = play(scene, name, number, options.seed)
                        for again in range(1, ATTEMPTS):  # a run that ended before its fault shows nothing
                            if played.detail:
                                break
                            played = play(scene, name, number, options.seed + 1_000_000 * again)
                    except UnavailableError as error:
                        out.print(escape(f"{name} is left out: {error}"))
                        break
                    rounds.append(played)
                    if played.problems or options.verbose:
                        out.print(
                            escape(f"{name} {number} ({played.moment:.1f} s, {played.detail}): {played.problems}")
                        )
        finally:
            scene.end()
    out.print(_table(options.fault, rounds))
    if options.json:
        options.json.write_text(json.dumps([asdict(item) for item in rounds], indent=2), encoding="utf-8")
    return 1 if any(item.problems for item in rounds) else 0


def play(scene: Scene, name: str, number: int, seed: int) -> Round:
    """One round: fault, attempts, comparison."""
    rng = random.Random(f"{seed}/{name}/{number}")  # noqa: S311
    scene.clear()
    fault = KINDS[name](scene, rng)
    with fault:
        result = Round(name, number, moment=rng.uniform(0.2, scene.seconds * 0.95))
        process = scene.start(fault.environment, prefix=fault.prefix)
        deadline = time.monotonic() + result.moment
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        if process.poll() is not None:
            return result
        before = scene.committed()
        fault.strike(process)
        result.detail = fault.detail
        begin = time.monotonic()
        code, text = scene.finish(process)
        if left := scene.left_behind(process.pid):
            result.problems.append(f"processes are left: {[item.pid for item in left]}")
        result.codes.append(code)
        result.problems += _unclear(code, text)
        fault.heal()
        repair: tuple[str, ...] = ()
        while result.codes[-1] != 0 and len(result.codes) < ATTEMPTS:
            if result.codes[-1] == 4:
                repair, result.repaired = ("--repair",), True
            process = scene.start(fault.environment, *repair, prefix=fault.prefix)
            code, text = scene.finish(process)
            result.codes.append(code)
            result.problems += _unclear(code, text)
        result.resume_seconds = round(time.monotonic() - begin, 2)
        result.problems += _compare(scene, before, damaged=fault.damages)
    return result


def _unclear(code: int, text: str) -> list[str]:
    """What is wrong with how an attempt ended."""
    found = []
    if code not in CODES:
        found.append(f"exit code {code}")
    if "Traceback (most recent call last)" in text:
        found.append("a traceback: " + text[text.index("Traceback") :][:1500])
    if code in (1, 4) and not any(word in text for word in ("Go on with", "knowrl resume", "--repair")):
        found.append(f"exit code {code} without a next step: {text[-400:]}")
    return found


def _compare(scene: Scene, before: dict[str, str], *, damaged: bool) -> list[str]:
    found = []
    files = scene.files()
    different = sorted(
        name for name in files.keys() | scene.reference.keys() if files.get(name) != scene.reference.get(name)
    )
    if different:
        found.append(f"{len(different)} files differ, for example {different[0]}")
    after = scene.committed()
    lost = sorted(name for name in before if after.get(name) != before[name])
    if lost and not damaged:
        found.append(f"a committed stage was done again: {lost[0]}")
    return found


def _table(names: Sequence[str], rounds: Sequence[Round]) -> Table:
    table = Table("fault", box=box.SIMPLE_HEAD, pad_edge=False, title="rounds that ended as the uninterrupted run")
    for column in ("rounds", "passed", "went on by itself", "resumed", "repaired", "attempts", "seconds to the end"):
        table.add_column(column, justify="right")
    for name in names:
        own = [item for item in rounds if item.fault == name]
        if own:
            table.add_row(
                name,
                str(len(own)),
                str(sum(not item.problems for item in own)),
                str(sum(len(item.codes) == 1 for item in own)),
                str(sum(len(item.codes) > 1 and not item.repaired for item in own)),
                str(sum(item.repaired for item in own)),
                str(sum(len(item.codes) for item in own)),
                f"{sum(item.resume_seconds for item in own) / len(own):.1f}",
            )
    return table


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--fault", nargs="+", choices=tuple(KINDS), default=list(KINDS), help="kinds of fault (all)")
    add("--rounds", type=int, default=10, help="rounds of each kind (10)")
    add("--seed", type=int, default=0, help="seed (0)")
    add("--iterations", type=int, default=2, help="iterations of each run (2)")
    add("--folder", type=Path, help="folder for the runs (the system's temporary one)")
    add("--verbose", action="store_true", help="a line for every round")
    add("--json", type=Path, metavar="FILE", help="write all rounds here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
