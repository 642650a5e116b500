"""Temperature scaling: one number that makes probabilities fit how often the model is right (arXiv 1706.04599)."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from knowrl_core.evaluation.outcomes import Bools, Floats

_EDGE: Final = 1e-6
"""Probabilities are kept that far from 0 and 1, where a single wrong one would cost everything."""
_RANGE: Final = (0.02, 50.0)
"""Temperatures that are looked at."""


class Calibration(NamedTuple):
    """A fitted temperature.

    Attributes:
        temperature: Logits are divided by it: above 1 the model was too sure, below 1 too unsure.
        tasks: Labelled tasks that it was fitted on.
        nll_before: Mean negative log-likelihood of the labels, in nats, as the model gives it.
        nll_after: The same with the temperature.
    """

    temperature: float
    tasks: int
    nll_before: float
    nll_after: float


def fit_temperature(scores: Sequence[float], truth: Sequence[bool]) -> Calibration:
    """Find the temperature under which the labels are likeliest.

    The negative log-likelihood is convex in the inverse of the temperature, so there is one minimum.

    Args:
        scores: Probability of infeasible of each task, from 0 to 1.
        truth: Whether the task is infeasible.

    Returns:
        Temperature 1 where there is nothing to learn from.

    Raises:
        ValueError: The lengths differ, or a score is no probability.
    """
    p, y = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.bool_)
    if p.shape != y.shape or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"got {p.shape} scores and {y.shape} labels, expected a probability for each label")
    if not len(p):
        return Calibration(1.0, 0, 0.0, 0.0)
    from scipy.optimize import minimize_scalar

    logits = _logit(p)
    bounds = tuple(-np.log(edge) for edge in reversed(_RANGE))
    found = minimize_scalar(lambda x: _nll(logits * np.exp(x), y), bounds=bounds, method="bounded")
    before, after = _nll(logits, y), float(found.fun)
    temperature = float(np.exp(-found.x)) if after < before else 1.0
    return Calibration(temperature, len(p), before, min(after, before))


def calibrated(score: float, temperature: float) -> float:
    """A probability under a temperature; one half stays one half, so that no decision changes.

    Args:
        score: Probability, from 0 to 1.
        temperature: Above 0.
    """
    return float(1 / (1 + np.exp(-_logit(np.array([score]))[0] / temperature)))


def _logit(p: Floats) -> Floats:
    clipped = np.clip(p, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _nll(logits: Floats, truth: Bools) -> float:
    return float(np.mean(np.logaddexp(0, np.where(truth, -logits, logits))))
