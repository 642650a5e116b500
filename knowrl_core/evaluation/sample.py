"""Take a part of a set that is read as a stream."""

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from knowrl_core.evaluation.benchmarks.model import BenchmarkTask
from knowrl_core.labels import LABELS
from knowrl_core.rng import derive_seed


class Sampled(NamedTuple):
    """A part of a set."""

    tasks: list[BenchmarkTask]
    """In the order of the set."""
    total: Counter[str]
    """Tasks of the whole set, by label."""


def sample_tasks(tasks: Iterable[BenchmarkTask], limit: int, *, seed: int, name: str) -> Sampled:
    """Draw at most ``limit`` tasks at random, as large a share of each label as the whole set has.

    So numbers on the part estimate those on the whole, F1 and the constant answers included, which depend on the mix.

    Each task has a random rank that depends on seed, set and id (for twins on the name of their pair, so that they
    come together); the lowest ranks of each label are taken. So the draw does not depend on the order of the file, and
    no more than ``2 * limit`` tasks are in memory.

    Args:
        tasks: The set.
        limit: Most tasks, at least 1.
        seed: Seed of the draw.
        name: Name of the set.
    """
    lowest: dict[str, list[tuple[int, int, BenchmarkTask]]] = {label: [] for label in LABELS}
    total: Counter[str] = Counter()
    for place, task in enumerate(tasks):
        total[task.label] += 1
        rank = derive_seed(seed, "sample", name, task.pair or task.id)
        heap = lowest[task.label]
        # Negated: the root is the highest rank, which leaves when a lower one comes.
        if len(heap) < limit:
            heapq.heappush(heap, (-rank, -place, task))
        else:
            heapq.heappushpop(heap, (-rank, -place, task))
    chosen = [
        (-place, task)
        for label, count in _shares(total, limit).items()
        for _, place, task in sorted(lowest[label], reverse=True)[:count]
    ]
    return Sampled([task for _, task in sorted(chosen)], total)


def _shares(total: Counter[str], limit: int) -> dict[str, int]:
    """How many tasks of each label to take; at least one of each that there is, if the limit lets them."""
    whole = total.total()
    if whole <= limit:
        return dict(total)
    feasible, infeasible = (total[label] for label in LABELS)
    # Half a task is rounded up, and the other label gets the rest.
    part = (2 * limit * infeasible + whole) // (2 * whole)
    if limit > 1 and feasible and infeasible:
        part = min(max(part, 1), limit - 1)
    part = min(max(part, limit - feasible), infeasible)
    return dict(zip(LABELS, (limit - part, part), strict=True))
