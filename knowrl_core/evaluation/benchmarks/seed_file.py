"""Sets that ship with KnowRL, and any file of the user's in their shape (JSON lines: id, task, label)."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from knowrl_core.errors import InputError
from knowrl_core.evaluation.benchmarks.model import BenchmarkTask, Load
from knowrl_core.labels import LABELS
from knowrl_core.resources import shipped
from knowrl_core.seeds import SeedTask, load_seed_file


def seed_loader(file: str, *, paired: bool = False) -> Load:
    """A loader of a file in ``seeds/``.

    Args:
        file: Its name.
        paired: Each task must have a twin of the other label.
    """

    def load(path: Path | None, _left_out: object) -> Iterator[BenchmarkTask]:
        place = path or shipped("seeds", file)
        place = place / file if place.is_dir() else place
        tasks = from_seeds(load_seed_file(place))
        if paired:
            _check_pairs(place, tasks)
        yield from tasks

    return load


def from_seeds(tasks: Iterable[SeedTask]) -> list[BenchmarkTask]:
    """Seed tasks as tasks to evaluate; the category is their limit, the source their form."""
    return [BenchmarkTask(task.id, task.task, task.label, task.limit, task.form or "", task.pair) for task in tasks]


def _check_pairs(path: Path, tasks: list[BenchmarkTask]) -> None:
    twins: dict[str, list[BenchmarkTask]] = {}
    for task in tasks:
        if not task.pair:
            raise InputError(f"{path}: task {task.id!r}: field 'pair': missing, expected the name of its pair")
        twins.setdefault(task.pair, []).append(task)
    for name, pair in twins.items():
        if sorted(task.label for task in pair) != sorted(LABELS):
            ids = ", ".join(task.id for task in pair)
            raise InputError(f"{path}: pair {name!r}: got {ids}, expected one feasible and one infeasible task")
