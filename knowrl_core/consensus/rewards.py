"""Rewards of verdicts.

A rule sees all tasks of an iteration at once, since some rules compare a task with the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from knowrl_core.consensus.vote import Tally
from knowrl_core.labels import Label


@dataclass(frozen=True, slots=True)
class Ballot:
    """The verdicts on one task.

    Attributes:
        task_id: The task.
        verdicts: Its verdicts, in sample order.
        tally: Their count.
    """

    task_id: str
    verdicts: tuple[str, ...]
    tally: Tally


class RewardRule(Protocol):
    """Gives each verdict of each ballot its reward."""

    def __call__(self, ballots: Sequence[Ballot]) -> list[list[float]]:
        """Rewards by ballot, in sample order."""
        ...


def agreement(verdicts: Sequence[str], target: Label | None) -> list[float]:
    """1.0 for each verdict that equals the target, else 0.0.

    A target is a label, so unparseable verdicts earn nothing; without a target (a tie) no verdict does.
    """
    return [float(target is not None and verdict == target) for verdict in verdicts]


def majority_reward(ballots: Sequence[Ballot]) -> list[list[float]]:
    """Agreement with the majority of the task's own verdicts (KnowRL's consensus reward)."""
    return [agreement(ballot.verdicts, ballot.tally.majority) for ballot in ballots]
