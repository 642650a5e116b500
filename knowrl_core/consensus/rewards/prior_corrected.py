"""The majority against what is usual in the batch: the model's general lean to one label is taken out.

With m the median of the evidence p over the tasks of an iteration, the corrected evidence is

    p' = p / (2 m)                        for p < m
    p' = 1/2                              for p = m
    p' = 1/2 + (p - m) / (2 (1 - m))      for p > m

so 0, m and 1 go to 0, 1/2 and 1, and the order of the tasks stays. p' > 1/2 where p > m, hence at most half of the
tasks get either label, and where all have the same evidence none gets one: a model that always says the same earns
nothing. It holds as far as about half of the tasks are infeasible, which is how they are generated.

Subtracting what the model says on average over a batch is known from classification by prompting as batch calibration
(Zhou et al. 2023, arXiv 2309.17249), after contextual calibration (Zhao et al. 2021, arXiv 2102.09690); the median in
place of the mean makes it a question of rank, which a collapsing model keeps for longer than its threshold.
"""

from collections.abc import Sequence
from fractions import Fraction

from knowrl_core.consensus.rewards.evidence import Evidence, median_of

_HALF = Fraction(1, 2)


def prior_corrected(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence of each task against the median of all; tasks without evidence neither count nor get any."""
    median = median_of(evidence)
    return [None if p is None or median is None else _corrected(p, median) for p in evidence]


def _corrected(p: Fraction, median: Fraction) -> Fraction:
    # A branch is reached only where its divisor is above 0: p < m needs m > 0, and p > m needs m < 1.
    if p < median:
        return _HALF * p / median
    return _HALF if p == median else _HALF + _HALF * (p - median) / (1 - median)
