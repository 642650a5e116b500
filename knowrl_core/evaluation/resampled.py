"""All metrics of many resamples at once, each given as how often it holds every task.

With weights ``w`` (R resamples by n tasks) every count becomes ``w @ indicator``, so that a thousand resamples cost as
much as a few passes over the tasks instead of a thousand calls. Tested to equal scikit-learn on the repeated rows.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from knowrl_core.evaluation.outcomes import Floats, Outcomes

BINS: Final = 10
"""Bins of the calibration error, of equal width."""


def bins_of(scores: Floats) -> NDArray[np.int64]:
    """Bin of each score, from 0; an inner edge belongs to the bin below it, as in scikit-learn."""
    edges = np.linspace(0.0, 1.0, BINS + 1)[1:-1]
    return np.searchsorted(edges, scores).astype(np.int64)


class ResampledMetrics:
    """Computes metrics of resamples of the same outcomes."""

    def __init__(self, outcomes: Outcomes) -> None:
        truth, called = outcomes.truth, outcomes.called
        # Sums of zeros and ones times counts are exact, in whatever order they are added.
        self._indicators = np.stack(
            [
                truth & called, ~truth & called, truth & ~called, ~truth & ~called,
                outcomes.said_infeasible & ~truth, outcomes.said_feasible,
                ~outcomes.said_feasible & ~outcomes.said_infeasible,
            ],
            axis=1,
        ).astype(np.float64)  # fmt: skip
        self._squares = (outcomes.score - truth) ** 2
        self._by_score = np.argsort(outcomes.score, kind="stable")
        ranked = outcomes.score[self._by_score]
        self._truth = truth[self._by_score]
        self._gaps = truth[self._by_score] - ranked
        self._ties = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        bins = bins_of(ranked)
        self._bins = np.flatnonzero(np.r_[True, bins[1:] != bins[:-1]])
        units, first = np.unique(outcomes.unit, return_index=True)
        together = np.bincount(outcomes.unit)[units] > 1
        wrong = np.bincount(outcomes.unit, weights=called != truth)[units]
        self._pair_first, self._pair_right = first[together], (wrong[together] == 0).astype(np.float64)

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Metrics of each resample, by name; NaN where undefined.

        Args:
            weights: How often each resample holds each task. Shape (resamples, tasks).
        """
        tp, fp, fn, tn, refused, feasible, unparseable = (weights @ self._indicators).T
        total, positives, negatives = tp + fp + fn + tn, tp + fn, fp + tn
        recall, specificity = _ratio(tp, positives), _ratio(tn, negatives)
        metrics = {
            "accuracy": (tp + tn) / total,
            "balanced_accuracy": (recall + specificity) / 2,
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),
            "precision": _ratio(tp, tp + fp, empty=0.0),
            "recall": recall,
            "mcc": _mcc(tp, fp, fn, tn),
            "brier": (weights * self._squares).sum(axis=1) / total,
            "over_refusal": _ratio(refused, negatives),
            "called_feasible": feasible / total,
            "unparseable": unparseable / total,
        }
        ranked = weights[:, self._by_score]
        metrics["ece"] = np.abs(np.add.reduceat(ranked * self._gaps, self._bins, axis=1)).sum(axis=1) / total
        metrics["auroc"] = self._auroc(ranked, positives * negatives)
        if len(self._pair_first):
            held = weights[:, self._pair_first]
            metrics["pair_accuracy"] = _ratio(held @ self._pair_right, held.sum(axis=1))
        return metrics

    def _auroc(self, ranked: Floats, comparisons: Floats) -> Floats:
        """Share of (infeasible, feasible) couples in which the infeasible task scores higher; ties count half."""
        above = np.add.reduceat(ranked * self._truth, self._ties, axis=1)
        beside = np.add.reduceat(ranked * ~self._truth, self._ties, axis=1)
        below = np.cumsum(beside, axis=1) - beside
        return _ratio((above * (below + beside / 2)).sum(axis=1), comparisons)


def _mcc(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    """Matthews correlation; 0 if only one class is called, as scikit-learn has it, NaN if there is only one."""
    both = (tp + fn) * (fp + tn)
    correlation = _ratio(tp * tn - fp * fn, np.sqrt(both * (tp + fp) * (tn + fn)), empty=0.0)
    return np.where(both > 0, correlation, np.nan)


def _ratio(part: Floats, whole: Floats, *, empty: float = np.nan) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, empty), where=whole > 0)
