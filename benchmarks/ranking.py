"""How well scores rank tasks: the area under the ROC curve with its interval, for the diagnoses of this folder."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

ROUNDS: Final = 2_000
"""Bootstrap samples."""


def area(truth: NDArray[Any], scores: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """``auroc`` and its 95 % bootstrap ``interval`` over the tasks.

    Args:
        truth: [tasks] true or 1 where a task is infeasible.
        scores: [tasks] higher where it is called infeasible.
        seed: Seed of the resamples; those of one label alone have no area and are left out.
    """
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(truth), size=len(truth)) for _ in range(ROUNDS))
    areas = [roc_auc_score(truth[i], scores[i]) for i in drawn if 0 < truth[i].sum() < len(i)]
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "interval": [float(bound) for bound in np.quantile(areas, [0.025, 0.975])],
    }


def shown(row: dict[str, Any]) -> str:
    """An area as the tables print it."""
    lower, upper = row["interval"]
    return f"{row['auroc']:.3f} ({lower:.3f} to {upper:.3f})"
