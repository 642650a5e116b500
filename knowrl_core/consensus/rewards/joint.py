"""Two judges of the same tasks, such as a policy's verdicts and a likelihood (``consensus.reward.votes: joint``).

The evidence is the mean of a task's two ranks. Ranks, since the judges have scales of their own: a policy is soon sure,
and likelihoods never are. Where two judges err on different tasks, their mean ranks better than either, and neither can
confirm itself. That is the condition of co-training (Blum and Mitchell 1998).
"""

from collections.abc import Sequence

from knowrl_core.consensus.rewards.evidence import Evidence
from knowrl_core.consensus.rewards.rank import rank


def joint_evidence(first: Sequence[Evidence], second: Sequence[Evidence]) -> list[Evidence]:
    """Two judges' evidence on the same tasks, task by task, as one; None where either has nothing to say."""
    pairs = zip(rank(first), rank(second), strict=True)
    return [None if one is None or other is None else (one + other) / 2 for one, other in pairs]
