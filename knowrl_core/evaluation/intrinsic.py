"""Metrics of a model against itself: does it judge tasks as it meant them?"""

from collections.abc import Sequence

from knowrl_core.consensus.vote import Tally
from knowrl_core.labels import FEASIBLE, LABELS, UNPARSEABLE
from knowrl_core.storage.schemas import ConsensusRecord, MetricRecord, PredictionRecord


def intrinsic_metrics(dataset: str, predictions: Sequence[PredictionRecord]) -> list[MetricRecord]:
    """Compute the intrinsic metrics of a generated set.

    High values alone mean little: a model that always says the same agrees with itself perfectly. They stand beside
    ``called_feasible`` and beside the extrinsic metrics.

    Args:
        dataset: ``frozen`` or ``fresh``.
        predictions: Predictions whose ``label`` is the label that the task was generated under.

    Returns:
        One row a metric: ``agreement`` (share of tasks predicted as intended; no decision agrees with nothing) over all
        and by intended label, ``mean_share`` (majority votes over k), ``called_feasible`` and ``unparseable`` (shares
        of all tasks). The value is None without tasks.
    """
    rows = [_row(dataset, "agreement", [p.predicted == p.label for p in predictions])]
    for label in LABELS:
        own = [p.predicted == p.label for p in predictions if p.label == label]
        rows.append(_row(dataset, f"agreement_{label}", own))
    votes = [Tally(p.votes_feasible, p.votes_infeasible, p.votes_unparseable) for p in predictions]
    rows.append(_row(dataset, "mean_share", [tally.share for tally in votes]))
    rows.append(_row(dataset, "called_feasible", [p.predicted == FEASIBLE for p in predictions]))
    rows.append(_row(dataset, "unparseable", [p.predicted == UNPARSEABLE for p in predictions]))
    return rows


def consensus_metrics(dataset: str, records: Sequence[ConsensusRecord]) -> list[MetricRecord]:
    """The same metrics from a consensus table: the votes of the policy that wrote the tasks, before its update."""
    return intrinsic_metrics(
        dataset,
        [
            PredictionRecord(
                dataset=dataset,
                task_id=record.task_id,
                task=record.task,
                label=record.intended,
                predicted=record.label or UNPARSEABLE,
                score=record.p_infeasible,
                votes_feasible=record.votes_feasible,
                votes_infeasible=record.votes_infeasible,
                votes_unparseable=record.votes_unparseable,
                prompt_sha256="",
                policy="",
            )
            for record in records
        ],
    )


def _row(dataset: str, metric: str, values: Sequence[float]) -> MetricRecord:
    return MetricRecord(
        dataset=dataset, metric=metric, value=sum(values) / len(values) if values else None, n=len(values)
    )
