"""Figures of an iteration's consensus."""

from collections.abc import Sequence
from statistics import median

from knowrl_core.consensus.vote import Tally
from knowrl_core.labels import FEASIBLE, INFEASIBLE
from knowrl_core.storage.schemas import ConsensusRecord, PoolRecord


def summarise(
    records: Sequence[ConsensusRecord], pool: Sequence[PoolRecord], anchors: Sequence[ConsensusRecord] = ()
) -> dict[str, float]:
    """Summarise a consensus table.

    Args:
        records: The candidates; all figures are theirs but for the last two.
        pool: The pool after the iteration.
        anchors: The anchors.

    Returns:
        ``tasks``, ``trained``, ``pooled`` and ``pool_size`` (counts) and, where there is anything to average:

        - over verdicts: ``mean_reward``, ``unparseable_rate``;
        - over tasks: ``mean_share``, ``tie_rate``, ``agreement`` (with the intended label; a tie agrees with nothing),
          ``label_infeasible`` (share labelled infeasible), ``median_infeasible`` (median of the evidence, over the
          tasks that have any: how far the judge leans to infeasible);
        - over tasks with a label: ``label_balance`` (share labelled feasible), ``teacher_agreement`` (share in which
          the majority of the policy's own verdicts is the teacher's label; its tie agrees with nothing);
        - ``anchors`` (count), ``anchor_reward`` (over verdicts on anchors: accuracy on the seeds).

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
        figures["label_infeasible"] = labels.count(INFEASIBLE) / len(records)
    if rewards:
        figures["mean_reward"] = sum(rewards) / len(rewards)
        figures["unparseable_rate"] = sum(record.votes_unparseable for record in records) / len(rewards)
    if labels:
        figures["label_balance"] = labels.count(FEASIBLE) / len(labels)
    evidence = [record.evidence for record in records if record.evidence is not None]
    if evidence:
        figures["median_infeasible"] = median(evidence)
    taught = [_follows(record) for record in records if record.label and record.teacher_feasible is not None]
    if taught:
        figures["teacher_agreement"] = sum(taught) / len(taught)
    if anchors:
        right = [value for anchor in anchors for value in anchor.rewards]
        figures |= {"anchors": len(anchors), "anchor_reward": sum(right) / len(right)}
    return figures


def _follows(record: ConsensusRecord) -> bool:
    votes = Tally(record.votes_feasible, record.votes_infeasible, record.votes_unparseable)
    return votes.majority == record.label
