"""Flip rates: does the answer change when only the order of the labels, or the wording, changes?

A model that knows what it can do gives the same answer to the same task, however it is asked. The share of tasks whose
answer changes is the flip rate; 0 is best, and a model that always says the same has it, too.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from knowrl_core.prompts import VIEWS, View
from knowrl_core.storage.schemas import MetricRecord

FLIP_ORDER: Final = "flip_order"
FLIP_WORDING: Final = "flip_wording"


class ViewSet(NamedTuple):
    """Views that differ from a base in one thing each."""

    base: View
    swapped: View
    """Same wording, labels in the other order."""
    reworded: tuple[View, ...]
    """Other wordings, labels in the same order."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all of them, the base first."""
        return (self.base.name, self.swapped.name, *(view.name for view in self.reworded))


def views_around(name: str) -> ViewSet:
    """The views that differ from the view of this name in order or in wording alone."""
    base = VIEWS[name]
    others = [view for view in VIEWS.values() if view.name != name]
    swapped = next(view for view in others if view.question == base.question)
    return ViewSet(base, swapped, tuple(view for view in others if view.first == base.first))


def flip_metrics(dataset: str, views: ViewSet, said: Sequence[Sequence[str]]) -> list[MetricRecord]:
    """Compute the flip rates.

    ``flip_order`` is the share of tasks answered otherwise with the labels swapped; ``flip_wording`` the same for
    another wording, averaged over the wordings. No decision counts as an answer of its own.

    Args:
        dataset: Name of the set.
        views: The views asked.
        said: For each task what was said in each view, in the order of ``views.names``.
    """
    n = len(said)

    def flipped(place: int) -> float:
        return sum(answers[place] != answers[0] for answers in said) / n

    places = range(2, len(views.names))
    rates = (flipped(1), sum(map(flipped, places)) / len(places)) if n else (None, None)
    return [MetricRecord(dataset, name, rate, n) for name, rate in zip((FLIP_ORDER, FLIP_WORDING), rates, strict=True)]
