"""Evidence: how much the verdicts on a task speak for infeasible, from 0 to 1."""

import math
import statistics
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Literal

from knowrl_core.consensus.vote import tally
from knowrl_core.errors import StageError
from knowrl_core.storage.schemas import VerdictRecord

Evidence = Fraction | None
"""Exact; None where there is nothing to go by."""


def evidence_of(rows: Sequence[VerdictRecord], kind: Literal["votes", "probability"]) -> Evidence:
    """The evidence in a task's verdicts.

    Args:
        rows: The verdicts of one task.
        kind: ``votes``: infeasible votes over all votes, with unparseable verdicts left out. ``probability``: the exact
            probability of infeasible (see :func:`mean_probability`).

    Raises:
        StageError: ``probability`` is asked of verdicts that have none.
    """
    if kind == "votes":
        votes = tally(row.verdict for row in rows)
        said = votes.feasible + votes.infeasible
        return Fraction(votes.infeasible, said) if said else None
    exact = mean_probability(rows)
    if exact is None and rows:
        raise StageError(
            f"task {rows[0].task_id!r}: got verdicts without label probabilities, expected those of constrained "
            "verdicts, since consensus.reward.evidence is 'probability'",
            hint="They were judged in verdict.mode free: set consensus.reward.evidence to votes until they are done.",
        )
    # Rounded to a float first: 0.2 and 0.8 are a tie, although as binary fractions their mean lies off 1/2.
    return None if exact is None else Fraction(exact)


def mean_probability(rows: Sequence[VerdictRecord]) -> float | None:
    """Mean exact probability of infeasible over the views asked; None in free mode.

    Each view counts once, also where the k verdicts do not divide evenly by the views.
    """
    views = {row.view: row.p_infeasible for row in rows}
    known = [p for p in views.values() if p is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(views) else None


def median_of(evidence: Iterable[Evidence]) -> Evidence:
    """Median of the evidence that there is: of an even number the mean of the middle two; None of nothing."""
    known = [value for value in evidence if value is not None]
    return statistics.median(known) if known else None
