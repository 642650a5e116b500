"""The majority decides (KnowRL, arXiv 2510.11407; for answers of any kind TTRL, arXiv 2504.16084).

With n_i infeasible and n_f feasible votes the evidence is p = n_i / (n_i + n_f), and the label is infeasible where
p > 1/2, which is n_i > n_f. Alone it collapses: a verdict that never changes is its own majority, so a model that
always says the same earns 1 on every task, more than one that judges.
"""

from collections.abc import Sequence

from knowrl_core.consensus.rewards.evidence import Evidence


def majority(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence as it is."""
    return list(evidence)
