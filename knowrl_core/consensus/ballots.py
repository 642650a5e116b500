"""Verdict rows by task."""

from collections import defaultdict
from collections.abc import Sequence

from knowrl_core.errors import StageError
from knowrl_core.storage.schemas import VerdictRecord


def verdicts_by_task(
    verdicts: Sequence[VerdictRecord], task_ids: Sequence[str], k: int
) -> dict[str, list[VerdictRecord]]:
    """Group verdict rows by task, in sample order.

    Raises:
        StageError: A task has not exactly the samples 0 to k - 1, or a row's task is unknown; names the task.
    """
    hint = "The verdict table does not belong to these tasks: run the stage that made it again."
    groups: dict[str, list[VerdictRecord]] = defaultdict(list)
    for row in verdicts:
        groups[row.task_id].append(row)
    for task_id in groups.keys() - set(task_ids):
        raise StageError(
            f"task {task_id!r}: got {len(groups[task_id])} verdicts, expected none: unknown task", hint=hint
        )
    for task_id in task_ids:
        rows = sorted(groups[task_id], key=lambda row: row.sample)
        samples = [row.sample for row in rows]
        if samples != list(range(k)):
            raise StageError(
                f"task {task_id!r}: got {len(samples)} verdicts with numbers {samples[:20]}, expected 0 to {k - 1}",
                hint=hint,
            )
        groups[task_id] = rows
    return dict(groups)
