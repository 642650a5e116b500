"""The reward of a verdict."""

from collections.abc import Sequence

from knowrl_core.labels import Label


def agreement(verdicts: Sequence[str], target: Label | None) -> list[float]:
    """1.0 for each verdict that equals the target, else 0.0.

    A target is a label, so unparseable verdicts earn nothing; without a target (a tie) no verdict does.
    """
    return [float(target is not None and verdict == target) for verdict in verdicts]
