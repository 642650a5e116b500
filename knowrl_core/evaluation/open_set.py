"""Open a benchmark: check the whole of it before any work is done, then give its tasks."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from knowrl_core.errors import InputError
from knowrl_core.evaluation.benchmarks import Benchmark, BenchmarkTask, LeftOuts
from knowrl_core.evaluation.sample import sample_tasks
from knowrl_core.evaluation.select import take_evenly

MAX_WORDING: Final = 20_000
"""Tasks on which the TF-IDF control is fitted; of a larger set, the first so many, half of them of each label."""


@dataclass(frozen=True, slots=True)
class OpenSet:
    """A benchmark that was read once from beginning to end.

    Attributes:
        name: The benchmark's.
        tasks: The tasks to evaluate; iterating reads the files again unless a limit was given.
        size: How many they are.
        available: How many the whole set has.
        left_out: Rows that are no tasks of the set, by reason.
        wording: Tasks on which the TF-IDF control is fitted: the whole set, or as much of it as it may hold.
    """

    name: str
    tasks: Iterable[BenchmarkTask]
    size: int
    available: int
    left_out: LeftOuts
    wording: Sequence[BenchmarkTask]


@dataclass(frozen=True, slots=True)
class _Stream:
    """Tasks that are read again each time they are iterated over."""

    benchmark: Benchmark
    path: Path | None

    def __iter__(self) -> Iterator[BenchmarkTask]:
        return self.benchmark.load(self.path, Counter())


def open_set(benchmark: Benchmark, path: Path | None, *, limit: int = 0, seed: int = 0) -> OpenSet:
    """Read and check a benchmark.

    Args:
        benchmark: The benchmark.
        path: Its file or folder; None for a built-in set, or for the Hub.
        limit: Most tasks; 0 means all. They are drawn at random by the seed, in the set's own mix of labels, except
            from the probe, of which a run takes the first of each label.
        seed: Seed of the draw.

    Raises:
        InputError: Something in the files is malformed; names file, line or row, and field.
    """
    left_out: LeftOuts = Counter()
    wording: list[BenchmarkTask] = []
    tasks = _watch(benchmark.load(path, left_out), wording)
    chosen: Iterable[BenchmarkTask]
    if limit and benchmark.name == "probe":
        whole = list(tasks)
        chosen, available = take_evenly(whole, limit), len(whole)
    elif limit:
        chosen, total = sample_tasks(tasks, limit, seed=seed, name=benchmark.name)
        available = total.total()
    else:
        chosen, available = _Stream(benchmark, path), sum(1 for _ in tasks)
    if not available:
        why = f"; left out: {dict(left_out)}" if left_out else ""
        raise InputError(f"{benchmark.name}: {str(path)!r}: got no task, expected at least one{why}")
    size = len(chosen) if isinstance(chosen, list) else available
    return OpenSet(benchmark.name, chosen, size, available, left_out, wording)


def _watch(tasks: Iterable[BenchmarkTask], wording: list[BenchmarkTask]) -> Iterator[BenchmarkTask]:
    """Pass tasks on and keep some for the TF-IDF control."""
    held: Counter[str] = Counter()
    for task in tasks:
        if held[task.label] < MAX_WORDING // 2:
            held[task.label] += 1
            wording.append(task)
        yield task
