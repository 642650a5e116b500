"""Bootstrap confidence intervals: how much a number would change on other tasks of the same kind.

The design of the resampling follows that of the sets:

- *Stratified by label.* How many tasks of each label a set holds was chosen by its authors, not found, so every
  resample holds as many of each. Metrics that need both classes stay defined, too.
- *Pairs stay together.* The twins of a pair share nearly all their words, so they are drawn as one.
- *Percentile intervals* at 95 % (Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13).

An interval says nothing about whether the set is a fair sample of what one cares about. Where a share is exactly 0 or
1, every resample agrees and the interval has no width.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from knowrl_core.evaluation.outcomes import Floats, Outcomes
from knowrl_core.evaluation.resampled import ResampledMetrics
from knowrl_core.rng import stream

LEVEL: Final = 0.95
"""Share of the resamples that an interval holds."""

_CELLS: Final = 1_000_000
"""Weights in memory at once: resamples come in blocks, so that memory does not grow with their number."""


def confidence_intervals(
    outcomes: Outcomes, names: Sequence[str], *, resamples: int, seed: int, name: str
) -> dict[str, tuple[float, float]]:
    """Intervals of metrics.

    Args:
        outcomes: The set.
        names: Metrics wanted.
        resamples: Resamples; 0 gives no intervals.
        seed: Seed of the resampling.
        name: Name of its random stream, such as the set's.

    Returns:
        Lower and upper end by metric; without those that are undefined.
    """
    if not resamples or not outcomes.size:
        return {}
    compute = ResampledMetrics(outcomes)
    blocks = [compute(weights) for weights in resample(outcomes, resamples, seed=seed, name=name)]
    intervals = {}
    for metric in names:
        values = np.concatenate([block[metric] for block in blocks])
        if not np.isnan(values).any():
            intervals[metric] = percentile_interval(values)
    return intervals


def percentile_interval(values: Floats) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    lower, upper = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(lower), float(upper)


def resample(outcomes: Outcomes, resamples: int, *, seed: int, name: str) -> Iterator[Floats]:
    """Draw resamples as weights, in blocks of shape (some, tasks) that make up ``resamples`` rows.

    Every stratum has a random stream of its own, read on from block to block.
    """
    strata = _strata(outcomes)
    streams = [stream(seed, "bootstrap", name, number) for number in range(len(strata))]
    rows = max(1, _CELLS // outcomes.size)
    units = int(outcomes.unit.max()) + 1
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = np.empty((count, units))
        for members, generator in zip(strata, streams, strict=True):
            picks = generator.integers(len(members), size=(count, len(members)))
            cells = picks + len(members) * np.arange(count)[:, None]
            held = np.bincount(cells.ravel(), minlength=count * len(members))
            drawn[:, members] = held.reshape(count, len(members))
        yield drawn[:, outcomes.unit]


def _strata(outcomes: Outcomes) -> list[NDArray[np.int64]]:
    """Units by how many tasks of each label they hold."""
    infeasible = np.bincount(outcomes.unit, weights=outcomes.truth)
    feasible = np.bincount(outcomes.unit, weights=~outcomes.truth)
    kinds, kind = np.unique(np.stack([infeasible, feasible]), axis=1, return_inverse=True)
    return [np.flatnonzero(kind.ravel() == number) for number in range(kinds.shape[1])]
