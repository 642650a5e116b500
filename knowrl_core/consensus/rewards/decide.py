"""From evidence to labels, by one of the rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

from knowrl_core.consensus.rewards.evidence import Evidence
from knowrl_core.consensus.rewards.majority import majority
from knowrl_core.consensus.rewards.prior_corrected import prior_corrected
from knowrl_core.consensus.rewards.rank import rank
from knowrl_core.labels import FEASIBLE, INFEASIBLE, Label


class LabelRule(Protocol):
    """Moves evidence so that 1/2 parts the labels.

    It sees all tasks of an iteration at once, since some rules compare a task with the others.
    """

    def __call__(self, evidence: Sequence[Evidence], /) -> list[Evidence]:
        """The moved evidence, task by task, within 0 and 1; None for a task without any."""
        ...


RULES: Final[dict[str, LabelRule]] = {"majority": majority, "prior_corrected": prior_corrected, "rank": rank}
"""The rules of ``consensus.reward.rule`` by name."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What verdicts are rewarded for, and how sure that is.

    Attributes:
        label: The label; None for a tie, also one without any evidence.
        share: Its strength, which the gates look at.
    """

    label: Label | None
    share: float


def decide(evidence: Sequence[Evidence], parseable: Sequence[Fraction], rule: LabelRule) -> list[Decision]:
    """Give each task its label.

    With q the evidence as the rule moved it, the label is infeasible for q > 1/2, feasible for q < 1/2, and a tie at
    1/2. The strength is max(q, 1 - q) times the parseable share u: for the majority of votes that is votes for the
    label over k, since (n / (k u)) u = n / k. Unparseable verdicts lower it, because a task that the model often fails
    to judge at all must not look as certain as one that it always judges alike. Without evidence it is 0.

    Args:
        evidence: Evidence of each task.
        parseable: Share of its verdicts that could be parsed.
        rule: The rule.
    """
    return [_decision(moved, share) for moved, share in zip(rule(evidence), parseable, strict=True)]


def _decision(evidence: Evidence, parseable: Fraction) -> Decision:
    if evidence is None:
        return Decision(None, 0.0)
    strength = float(max(evidence, 1 - evidence) * parseable)
    if 2 * evidence == 1:
        return Decision(None, strength)
    return Decision(INFEASIBLE if 2 * evidence > 1 else FEASIBLE, strength)
