"""The rank among the batch: which half of the tasks is the more infeasible one?

With n tasks that have evidence, l of them below and e of them equal to a task's own (itself included), its moved
evidence is the mid-rank

    q = (l + e / 2) / n

So the labels are those of the median, as under :mod:`.prior_corrected`, but the strength is how far out a task lies
among the others: a gate at 0.75 takes the outer half of the batch, whatever the scale of the evidence. That suits
evidence that never comes near 0 or 1, such as the likelihoods of :mod:`knowrl_core.verdicts.channel`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction

from knowrl_core.consensus.rewards.evidence import Evidence


def rank(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The mid-rank of each task; tasks without evidence neither count nor get any."""
    known = sorted(value for value in evidence if value is not None)
    return [
        None if p is None else Fraction(bisect_left(known, p) + bisect_right(known, p), 2 * len(known))
        for p in evidence
    ]
