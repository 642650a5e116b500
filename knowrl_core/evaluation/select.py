"""Take a part of a labelled set."""

from collections.abc import Sequence

from knowrl_core.evaluation.predict import EvalTask
from knowrl_core.labels import LABELS


def take_evenly(tasks: Sequence[EvalTask], limit: int) -> list[EvalTask]:
    """Return at most ``limit`` tasks, the same number of both labels as far as they reach, in their order.

    The first of each label are taken, so a larger limit only adds tasks. A label with too few leaves its places to the
    other.

    Args:
        tasks: The set.
        limit: Most tasks; 0 means all.
    """
    if not limit:
        return list(tasks)
    # Place within the label, then label: the labels take turns.
    order: list[str] = list(LABELS)
    counts = dict.fromkeys(order, 0)
    turns = []
    for place, task in enumerate(tasks):
        turns.append((counts[task.label], order.index(task.label), place))
        counts[task.label] += 1
    return [tasks[place] for place in sorted(place for _, _, place in sorted(turns)[:limit])]
