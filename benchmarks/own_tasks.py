"""What are labels worth on the tasks that the model writes? 240 of them, labelled by a person.

    .venv/bin/python -m benchmarks.own_tasks
    .venv/bin/python -m benchmarks.own_tasks --run runs/cpu --run runs/second

``own_tasks.jsonl`` holds tasks of SmolLM2-135M-Instruct with the label that one person gave them by the written rules
of ``seeds/README.md``, blind to every other label; ``unclear`` where the rules give none. Set ``frozen``: all 40
frozen tasks of each of three run seeds, written by the untouched model. Set ``trained``: 120 drawn at random from those
that iterations 2 to 9 of the shipped configuration trained on (run seed 0).

- *Agreement of a truthful judge:* intrinsic accuracy counts how often a verdict is the label that a task was written
  under. A judge who is right on each clear task, and for whom unclear ones are a coin, can be expected to agree
  that often.
- *With* ``--run``: how true the verdicts of runs are on their clear frozen tasks, together, iteration by iteration
  as far as all of them have come. Tasks are matched by their text, since other hardware may write others.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich import box
from rich.console import Console
from rich.table import Table
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from benchmarks.ranking import area, shown
from knowrl_core.labels import FEASIBLE, INFEASIBLE, LABELS, Label

FILE = Path(__file__).with_suffix(".jsonl")


class OwnTask(BaseModel):
    """A task that the model wrote."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: Literal["frozen", "trained"]
    run_seed: int
    id: str
    task: str
    intended: Label
    """What the introspection prompt asked for."""
    truth: Label | Literal["unclear"]
    label: Label | None = None
    """What the loop trained on."""
    p_infeasible: float | None = None
    """The policy's own verdict at that time."""


class Agreement(NamedTuple):
    """What a truthful judge would reach on one run's tasks."""

    tasks: int
    clear: int
    right: int
    """Clear tasks whose intended label is the true one."""

    @property
    def truthful(self) -> float:
        """Share of all tasks, unclear ones counting half."""
        return (self.right + (self.tasks - self.clear) / 2) / self.tasks


def load(path: Path = FILE) -> list[OwnTask]:
    """The labelled tasks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return TypeAdapter(list[OwnTask]).validate_json(f"[{','.join(lines)}]")


def clear_ones(tasks: Iterable[OwnTask]) -> list[OwnTask]:
    """The tasks that have a label."""
    return [task for task in tasks if task.truth != "unclear"]


def agreement(tasks: Iterable[OwnTask]) -> Agreement:
    """How often intended labels and truth agree."""
    rows = list(tasks)
    clear = clear_ones(rows)
    return Agreement(len(rows), len(clear), sum(row.intended == row.truth for row in clear))


def balanced(truth: Sequence[str], said: Sequence[str]) -> float:
    """Balanced accuracy."""
    return float(balanced_accuracy_score(np.array(truth), np.array(said)))


class Verdicts(NamedTuple):
    """What policies said of the frozen tasks of one iteration."""

    iteration: int
    said: pd.DataFrame
    """A row a task: ``label`` (intended), ``predicted``, ``score`` (higher is infeasible) and ``truth``."""

    def cells(self, seed: int) -> list[str]:
        """A row of the table."""
        clear = self.said[self.said.truth.isin(LABELS)]
        ranked = area((clear.truth == INFEASIBLE).to_numpy(), clear.score.to_numpy(), seed)
        agrees = float((self.said.predicted == self.said.label).mean())
        true = balanced(clear.truth, clear.predicted)
        return [
            str(self.iteration),
            str(len(clear)),
            f"{true:.3f}",
            shown(ranked),
            str(len(self.said)),
            f"{agrees:.3f}",
        ]


def verdicts(runs: Sequence[Path], tasks: Iterable[OwnTask]) -> list[Verdicts]:
    """What the runs' policies said, for each iteration that all of them have evaluated."""
    truth = {task.task: task.truth for task in tasks if task.set == "frozen"}
    found: dict[int, list[pd.DataFrame]] = {}
    for run in runs:
        for file in sorted(run.glob("iterations/*/evaluate/predictions.parquet")):
            said = pd.read_parquet(file)
            said = said[said.dataset == "frozen"]
            found.setdefault(int(file.parts[-3]), []).append(said.assign(truth=said.task.map(truth)))
    together = [
        Verdicts(number, pd.concat(parts)) for number, parts in sorted(found.items()) if len(parts) == len(runs)
    ]
    return [row for row in together if {FEASIBLE, INFEASIBLE} <= set(row.said.truth)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, action="append", default=[], help="folder of a run; may be repeated")
    options = parser.parse_args(arguments)
    tasks, console = load(), Console()
    table = Table("frozen tasks of", "tasks", "clear", "intended label right", "a truthful judge", box=box.MARKDOWN)
    for seed in sorted({task.run_seed for task in tasks if task.set == "frozen"}):
        found = agreement(task for task in tasks if task.set == "frozen" and task.run_seed == seed)
        table.add_row(f"run seed {seed}", *map(str, found), f"{found.truthful:.3f}")
    console.print(table)
    console.print(_trained([task for task in tasks if task.set == "trained"]))
    if options.run:
        table = Table(
            "iteration", "clear tasks", "balanced accuracy", "AUROC (95 %)", "frozen", "agreement", box=box.MARKDOWN
        )
        for row in verdicts(options.run, tasks):
            table.add_row(*row.cells(seed=0))
        console.print(table if table.rows else "These runs have no frozen tasks of either label that were labelled.")
    return 0


def _trained(tasks: Sequence[OwnTask]) -> Table:
    table = Table("trained on", "tasks", "label right", box=box.MARKDOWN)
    for truth in ("unclear", "infeasible", "feasible"):
        some = [task for task in tasks if task.truth == truth]
        table.add_row(truth, str(len(some)), "" if truth == "unclear" else str(sum(t.label == truth for t in some)))
    clear = clear_ones(tasks)
    truths = [task.truth for task in clear]
    ranked = roc_auc_score([truth == INFEASIBLE for truth in truths], [task.p_infeasible for task in clear])
    label = balanced(truths, [task.label or "" for task in clear])
    table.add_row("balanced accuracy of the label", str(len(clear)), f"{label:.3f}")
    table.add_row("of the intended label", str(len(clear)), f"{balanced(truths, [t.intended for t in clear]):.3f}")
    table.add_row("AUROC of the policy's verdicts", str(len(clear)), f"{ranked:.3f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
