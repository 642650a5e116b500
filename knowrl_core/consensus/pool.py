"""The pool: tasks of high consensus, shown as examples in later iterations."""

from collections.abc import Sequence

from knowrl_core.consensus.gates import IN_POOL, POOL_FULL
from knowrl_core.labels import LABELS
from knowrl_core.seeds.model import normalise
from knowrl_core.storage.schemas import PoolRecord


def grow_pool(
    pool: Sequence[PoolRecord], applicants: Sequence[PoolRecord], max_size: int
) -> tuple[list[PoolRecord], dict[str, str]]:
    """Add tasks to the pool.

    Each label has half of ``max_size`` (rounded down). The oldest leave first. If more apply at once than a label has
    places, those of the highest share enter, and among equals the earlier.

    Args:
        pool: The pool so far, oldest first.
        applicants: Tasks that passed the pool gate, in their order.
        max_size: Most tasks.

    Returns:
        The new pool, oldest first, and by id why an applicant did not enter.
    """
    places = max_size // len(LABELS)
    refused: dict[str, str] = {}
    known = {normalise(task.task) for task in pool}
    new = []
    for task in applicants:
        text = normalise(task.task)
        if text in known:
            refused[task.id] = IN_POOL
        else:
            known.add(text)
            new.append(task)
    staying: set[str] = set()
    for label in LABELS:
        ranked = sorted((task for task in new if task.label == label), key=lambda task: -task.share)
        refused |= {task.id: POOL_FULL for task in ranked[places:]}
        old = [task.id for task in pool if task.label == label]
        staying.update(old[max(0, len(old) + len(ranked[:places]) - places) :])
    kept = [task for task in pool if task.id in staying]
    return kept + [task for task in new if task.id not in refused], refused
