"""How sure a model is of its verdicts, whether they are right or not."""

import math
from collections.abc import Sequence

from knowrl_core.storage.schemas import MetricRecord, PredictionRecord


def entropy_record(dataset: str, predictions: Sequence[PredictionRecord]) -> MetricRecord:
    """The metric ``verdict_entropy``: mean binary entropy of a task's verdict, in nats.

    With ``p`` the exact probability of infeasible in constrained mode, or its share of the votes in free mode, the
    entropy of a task is ``-p log p - (1 - p) log (1 - p)``: 0 for a verdict that never changes, log 2 for a coin. Tasks
    without a parseable verdict have none; without any other the value is None.
    """
    values = [_entropy(row.score) for row in predictions if row.score is not None]
    value = math.fsum(values) / len(values) if values else None
    return MetricRecord(dataset=dataset, metric="verdict_entropy", value=value, n=len(values))


def _entropy(p: float) -> float:
    return 0.0 - math.fsum(share * math.log(share) for share in (p, 1.0 - p) if share > 0.0)
