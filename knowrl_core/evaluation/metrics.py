"""Metrics against the truth. Positive class: infeasible.

How a prediction without a decision (``unparseable``) enters: it is counted wrong, never dropped.

- *Confusion matrix* (accuracy, balanced_accuracy, f1, precision, recall, mcc): as the opposite of the truth.
- *Score* (auroc, brier): if it has a score (a tie has 0.5), that; without one, the worst: 0 for an infeasible task,
  1 for a feasible one.
- *Behaviour* (over_refusal, called_feasible): as neither label; these count what was said, not whether it was right.
"""

from collections.abc import Sequence

from sklearn import metrics as sk

from knowrl_core.labels import FEASIBLE, INFEASIBLE, POSITIVE, UNPARSEABLE
from knowrl_core.storage.schemas import MetricRecord, PredictionRecord


def extrinsic_metrics(dataset: str, predictions: Sequence[PredictionRecord]) -> list[MetricRecord]:
    """Compute all metrics of a labelled set.

    Args:
        dataset: Name of the set.
        predictions: Its predictions.

    Returns:
        One row a metric, always the same ones in the same order. The value is None where a metric is undefined: all of
        them without tasks; balanced_accuracy, mcc and auroc with one class only; recall without infeasible tasks;
        f1 if nothing is infeasible and nothing is called so; over_refusal without feasible tasks. Precision is 0 if no
        task is called infeasible, as f1 is then.
    """
    total = len(predictions)
    feasible = [p for p in predictions if p.label == FEASIBLE]
    values = (
        _confusion(predictions)
        | _scores(predictions)
        | {
            "over_refusal": _share(sum(p.predicted == INFEASIBLE for p in feasible), len(feasible)),
            "called_feasible": _share(sum(p.predicted == FEASIBLE for p in predictions), total),
            "unparseable": _share(sum(p.predicted == UNPARSEABLE for p in predictions), total),
        }
    )
    return [
        MetricRecord(dataset=dataset, metric=name, value=value, n=len(feasible) if name == "over_refusal" else total)
        for name, value in values.items()
    ]


def _confusion(predictions: Sequence[PredictionRecord]) -> dict[str, float | None]:
    names = ("accuracy", "balanced_accuracy", "f1", "precision", "recall", "mcc")
    if not predictions:
        return dict.fromkeys(names)
    truth = [int(p.label == POSITIVE) for p in predictions]
    called = [
        1 - right if p.predicted == UNPARSEABLE else int(p.predicted == POSITIVE)
        for p, right in zip(predictions, truth, strict=True)
    ]
    both, positives = len(set(truth)) == 2, sum(truth)
    return {
        "accuracy": float(sk.accuracy_score(truth, called)),
        "balanced_accuracy": float(sk.balanced_accuracy_score(truth, called)) if both else None,
        "f1": float(sk.f1_score(truth, called, zero_division=0)) if positives or sum(called) else None,
        "precision": float(sk.precision_score(truth, called, zero_division=0)),
        "recall": float(sk.recall_score(truth, called)) if positives else None,
        "mcc": float(sk.matthews_corrcoef(truth, called)) if both else None,
    }


def _scores(predictions: Sequence[PredictionRecord]) -> dict[str, float | None]:
    truth = [int(p.label == POSITIVE) for p in predictions]
    scores = [float(1 - right) if p.score is None else p.score for p, right in zip(predictions, truth, strict=True)]
    return {
        "auroc": float(sk.roc_auc_score(truth, scores)) if len(set(truth)) == 2 else None,
        "brier": _share(sum((score - right) ** 2 for score, right in zip(scores, truth, strict=True)), len(truth)),
    }


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
