"""Metrics of a model against itself: does it judge tasks as it meant them?

High values alone mean little: a model that always says the same agrees with itself perfectly. They stand beside
``called_feasible`` and beside the extrinsic metrics.
"""

from collections.abc import Sequence
from typing import NamedTuple

from knowrl_core.consensus.vote import Tally
from knowrl_core.labels import FEASIBLE, LABELS, UNPARSEABLE
from knowrl_core.storage.schemas import ConsensusRecord, MetricRecord, PredictionRecord


class _Judged(NamedTuple):
    intended: str
    predicted: str
    share: float


def intrinsic_metrics(dataset: str, predictions: Sequence[PredictionRecord]) -> list[MetricRecord]:
    """Compute the intrinsic metrics of a generated set from predictions.

    Args:
        dataset: ``frozen`` or ``fresh``.
        predictions: Predictions whose ``label`` is the label that the task was generated under.

    Returns:
        One row a metric: ``agreement`` (share of tasks predicted as intended; no decision agrees with nothing) over all
        and by intended label, ``mean_share`` (majority votes over k), ``called_feasible`` and ``unparseable`` (shares
        of all tasks). The value is None without tasks.
    """
    return _metrics(
        dataset,
        [
            _Judged(p.label, p.predicted, Tally(p.votes_feasible, p.votes_infeasible, p.votes_unparseable).share)
            for p in predictions
        ],
    )


def consensus_metrics(dataset: str, records: Sequence[ConsensusRecord]) -> list[MetricRecord]:
    """Compute the same metrics from a consensus table, by the policy's majority votes; a tie is no decision.

    The table's label may come from a teacher or against the batch's median, and so says nothing of the policy alone.
    """
    votes = [Tally(r.votes_feasible, r.votes_infeasible, r.votes_unparseable) for r in records]
    judged = zip(records, votes, strict=True)
    return _metrics(dataset, [_Judged(r.intended, own.majority or UNPARSEABLE, own.share) for r, own in judged])


def _metrics(dataset: str, tasks: Sequence[_Judged]) -> list[MetricRecord]:
    values: dict[str, list[float]] = {"agreement": [task.predicted == task.intended for task in tasks]}
    for label in LABELS:
        values[f"agreement_{label}"] = [task.predicted == label for task in tasks if task.intended == label]
    values["mean_share"] = [task.share for task in tasks]
    values["called_feasible"] = [task.predicted == FEASIBLE for task in tasks]
    values["unparseable"] = [task.predicted == UNPARSEABLE for task in tasks]
    return [
        MetricRecord(dataset=dataset, metric=name, value=sum(part) / len(part) if part else None, n=len(part))
        for name, part in values.items()
    ]
