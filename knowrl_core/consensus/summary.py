"""Figures of an iteration's consensus."""

from collections.abc import Sequence

from knowrl_core.labels import FEASIBLE
from knowrl_core.storage.schemas import ConsensusRecord, PoolRecord


def summarise(records: Sequence[ConsensusRecord], pool: Sequence[PoolRecord]) -> dict[str, float]:
    """Summarise a consensus table.

    Returns:
        ``tasks``, ``trained``, ``pooled`` and ``pool_size`` (counts) and, where there is anything to average,
        ``mean_reward`` and ``unparseable_rate`` (over verdicts), ``mean_share``, ``tie_rate`` and ``agreement`` (over
        tasks; a tie agrees with nothing), ``label_balance`` (share called feasible among the tasks with a consensus).
        Figures that are undefined are left out: trackers take no NaN.
    """
    figures: dict[str, float] = {
        "tasks": len(records),
        "trained": sum(record.trained for record in records),
        "pooled": sum(record.pooled for record in records),
        "pool_size": len(pool),
    }
    rewards = [value for record in records for value in record.rewards]
    labels = [record.label for record in records if record.label is not None]
    if records:
        figures["mean_share"] = sum(record.share for record in records) / len(records)
        figures["tie_rate"] = 1 - len(labels) / len(records)
        figures["agreement"] = sum(record.agrees is True for record in records) / len(records)
    if rewards:
        figures["mean_reward"] = sum(rewards) / len(rewards)
        figures["unparseable_rate"] = sum(record.votes_unparseable for record in records) / len(rewards)
    if labels:
        figures["label_balance"] = labels.count(FEASIBLE) / len(labels)
    return figures
