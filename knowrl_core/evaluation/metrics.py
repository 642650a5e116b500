"""Metrics against the truth. Positive class: infeasible.

How a prediction without a decision (``unparseable``) enters: it is counted wrong, never dropped.

- *Confusion matrix* (accuracy, balanced_accuracy, f1, precision, recall, mcc): as the opposite of the truth.
- *Score* (auroc, brier, ece): if it has a score (a tie has 0.5), that; without one, the worst: 0 for an infeasible
  task, 1 for a feasible one.
- *Behaviour* (over_refusal, called_feasible): as neither label; these count what was said, not whether it was right.

``ece``, with ``s`` the score and ``y`` the truth (1 for infeasible) over B = 10 bins of equal width in ``s``
(Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015):
``sum_b n_b / n * |mean_b(y) - mean_b(s)|``, which is ``sum_b |sum_b(y - s)| / n``.

``pair_accuracy``, only for paired sets: share of the pairs of which every task is predicted right. A constant answer
has 0 there, a coin one quarter.
"""

from collections.abc import Sequence

import numpy as np

from knowrl_core.evaluation.bootstrap import confidence_intervals
from knowrl_core.evaluation.outcomes import Bools, Floats, Outcomes, outcomes_of
from knowrl_core.evaluation.resampled import bins_of
from knowrl_core.storage.schemas import MetricRecord, PredictionRecord

MODEL = "model"
"""Predictor of the rows that are about the model and not about a control."""


def extrinsic_metrics(
    dataset: str, predictions: Sequence[PredictionRecord], *, resamples: int = 0, seed: int = 0
) -> list[MetricRecord]:
    """Compute all metrics of a labelled set; see :func:`metric_records`."""
    return metric_records(dataset, outcomes_of(predictions), resamples=resamples, seed=seed)


def metric_records(
    dataset: str, outcomes: Outcomes, *, predictor: str = MODEL, resamples: int = 0, seed: int = 0
) -> list[MetricRecord]:
    """Compute all metrics of a labelled set.

    Args:
        dataset: Name of the set.
        outcomes: What was said about its tasks.
        predictor: Who said it.
        resamples: Bootstrap resamples for the intervals; 0 means none.
        seed: Seed of the resampling.

    Returns:
        One row a metric, always the same ones in the same order (``pair_accuracy`` last, for paired sets). The value is
        None where a metric is undefined: all of them without tasks; balanced_accuracy, mcc and auroc with one class
        only; recall without infeasible tasks; f1 if nothing is infeasible and nothing is called so; over_refusal
        without feasible tasks. Precision is 0 if no task is called infeasible, as f1 is then.
    """
    values = metric_values(outcomes)
    intervals = confidence_intervals(outcomes, list(values), resamples=resamples, seed=seed, name=dataset)
    feasible = int((~outcomes.truth).sum())
    records = []
    for name, value in values.items():
        lower, upper = intervals[name] if value is not None and name in intervals else (None, None)
        count = feasible if name == "over_refusal" else outcomes.size
        records.append(MetricRecord(dataset, name, value, count, predictor, lower, upper))
    return records


def metric_values(outcomes: Outcomes) -> dict[str, float | None]:
    """All metrics by name; None where undefined."""
    total = outcomes.size
    feasible = ~outcomes.truth
    values = _confusion(outcomes.truth, outcomes.called) | _scores(outcomes.truth, outcomes.score)
    values |= {
        "over_refusal": _share(int((outcomes.said_infeasible & feasible).sum()), int(feasible.sum())),
        "called_feasible": _share(int(outcomes.said_feasible.sum()), total),
        "unparseable": _share(int((~outcomes.said_feasible & ~outcomes.said_infeasible).sum()), total),
    }
    if outcomes.paired:
        wrong = np.bincount(outcomes.unit, weights=outcomes.called != outcomes.truth)
        together = np.bincount(outcomes.unit) > 1
        values["pair_accuracy"] = float(np.mean(wrong[together] == 0))
    return values


def _confusion(truth: Bools, called: Bools) -> dict[str, float | None]:
    names = ("accuracy", "balanced_accuracy", "f1", "precision", "recall", "mcc")
    if not len(truth):
        return dict.fromkeys(names)
    from sklearn import metrics as sk  # takes a second: not for commands that evaluate nothing

    positives = int(truth.sum())
    both = 0 < positives < len(truth)
    return {
        "accuracy": float(sk.accuracy_score(truth, called)),
        "balanced_accuracy": float(sk.balanced_accuracy_score(truth, called)) if both else None,
        "f1": float(sk.f1_score(truth, called, zero_division=0)) if positives or called.any() else None,
        "precision": float(sk.precision_score(truth, called, zero_division=0)),
        "recall": float(sk.recall_score(truth, called)) if positives else None,
        "mcc": float(sk.matthews_corrcoef(truth, called)) if both else None,
    }


def _scores(truth: Bools, scores: Floats) -> dict[str, float | None]:
    if not len(truth):
        return dict.fromkeys(("auroc", "brier", "ece"))
    from sklearn import metrics as sk

    apart = np.bincount(bins_of(scores), weights=truth - scores)
    return {
        "auroc": float(sk.roc_auc_score(truth, scores)) if 0 < truth.sum() < len(truth) else None,
        "brier": float(np.mean((scores - truth) ** 2)),
        "ece": float(np.abs(apart).sum() / len(truth)),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
