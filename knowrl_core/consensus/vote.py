"""Count verdicts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from knowrl_core.labels import FEASIBLE, INFEASIBLE, UNPARSEABLE, Label, Verdict


@dataclass(frozen=True, slots=True)
class Tally:
    """Verdicts on one task, counted. Unparseable ones are no votes."""

    feasible: int
    infeasible: int
    unparseable: int

    @property
    def k(self) -> int:
        """All verdicts."""
        return self.feasible + self.infeasible + self.unparseable

    @property
    def majority(self) -> Label | None:
        """The label with more votes; None for a tie, also one without any vote."""
        if self.feasible == self.infeasible:
            return None
        return FEASIBLE if self.feasible > self.infeasible else INFEASIBLE

    @property
    def share(self) -> float:
        """Votes for the majority label over k; for a tie, those for either. 0 without a vote.

        Unparseable verdicts count in k, so they lower the share: a task that the model often fails to judge at all must
        not look as certain as one that it always judges alike.
        """
        return max(self.feasible, self.infeasible) / self.k if self.k else 0.0

    @property
    def infeasible_share(self) -> float | None:
        """Share of infeasible among the votes; None without a vote."""
        votes = self.feasible + self.infeasible
        return self.infeasible / votes if votes else None


def tally(verdicts: Iterable[Verdict | str]) -> Tally:
    """Count verdicts.

    Raises:
        ValueError: Something else than a verdict is among them.
    """
    counts = Counter(verdicts)
    result = Tally(counts[FEASIBLE], counts[INFEASIBLE], counts[UNPARSEABLE])
    if result.k != counts.total():
        unknown = sorted(set(counts) - {FEASIBLE, INFEASIBLE, UNPARSEABLE})
        raise ValueError(f"got verdict {unknown[0]!r}, expected {FEASIBLE}, {INFEASIBLE} or {UNPARSEABLE}")
    return result
