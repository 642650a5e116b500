"""Rewards: evidence of a task -> rule -> its label and strength -> a reward for each verdict.

1. *Evidence* (:mod:`.evidence`) is how much speaks for infeasible: a share of votes, a mean probability, or the
   mean rank of two judges (:mod:`.joint`).
2. A *rule* (:mod:`.majority`, :mod:`.prior_corrected`, :mod:`.rank`) moves the evidence of all tasks of an iteration so
   that 1/2 parts the labels.
3. :func:`decide` reads label and strength off the moved evidence.
4. :func:`agreement` rewards the verdicts that equal the label.

Evidence is kept as exact fractions, so that "equal to the median" and "half of the votes" mean just that.
"""

from knowrl_core.consensus.rewards.agreement import agreement
from knowrl_core.consensus.rewards.decide import RULES, Decision, LabelRule, decide
from knowrl_core.consensus.rewards.evidence import Evidence, evidence_of, mean_probability, median_of
from knowrl_core.consensus.rewards.joint import joint_evidence
from knowrl_core.consensus.rewards.majority import majority
from knowrl_core.consensus.rewards.prior_corrected import prior_corrected
from knowrl_core.consensus.rewards.rank import rank

__all__ = [
    "RULES",
    "Decision",
    "Evidence",
    "LabelRule",
    "agreement",
    "decide",
    "evidence_of",
    "joint_evidence",
    "majority",
    "mean_probability",
    "median_of",
    "prior_corrected",
    "rank",
]
