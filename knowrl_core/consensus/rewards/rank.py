"""The rank among the batch: which half of the tasks is the more infeasible one?

With n tasks that have evidence, l of them below and e of them equal to a task's own (itself included), its moved
evidence is the mid-rank

    q = (l + e / 2) / n

So the labels are those of the median, as under :mod:`.prior_corrected`, but the strength is how far out a task lies
among the others: a gate at 0.75 takes the outer half of the batch, whatever the scale of the evidence. That suits
evidence that never comes near 0 or 1, such as the likelihoods of :mod:`knowrl_core.verdicts.channel`.
"""

from collections.abc import Sequence

from knowrl_core.consensus.rewards.evidence import Evidence, mid_ranks


def rank(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The mid-rank of each task; tasks without evidence neither count nor get any."""
    return mid_ranks(evidence)
