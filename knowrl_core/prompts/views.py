"""Views: the wordings and label orders in which a verdict can be asked.

A view fills variables of the verdict templates; it knows nothing of the task and so nothing of its label. Votes over
several views carry more than votes within one, since they differ in more than sampling noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from knowrl_core.errors import InputError
from knowrl_core.labels import FEASIBLE, INFEASIBLE, Label

MEANINGS: Final[dict[Label, str]] = {
    FEASIBLE: "you can do this",
    INFEASIBLE: "you cannot do this",
}
"""What the labels mean, as the prompts explain them."""

_WORDINGS: Final = {
    "": "Can you do this task?",
    "possible_": "Is this task possible for you?",
    "which_": "Which is it?",
}


_ORDERS: Final[tuple[tuple[Label, Label], ...]] = ((FEASIBLE, INFEASIBLE), (INFEASIBLE, FEASIBLE))


@dataclass(frozen=True, slots=True)
class View:
    """One way to ask for a verdict.

    Attributes:
        name: Its name in ``verdict.views`` and in the lineage.
        question: The question put to the model.
        first: The label named first.
        second: The label named second.
    """

    name: str
    question: str
    first: Label
    second: Label

    def variables(self) -> dict[str, str]:
        """Variables for the verdict templates; all are text."""
        return {
            "question": self.question,
            "first": self.first,
            "second": self.second,
            "first_meaning": MEANINGS[self.first],
            "second_meaning": MEANINGS[self.second],
        }


def _all_views() -> dict[str, View]:
    views = {}
    for prefix, question in _WORDINGS.items():
        for first, second in _ORDERS:
            name = f"{prefix}{first}_first"
            views[name] = View(name, question, first, second)
    return views


VIEWS: Final[dict[str, View]] = _all_views()
"""All views by name: each wording in both label orders."""


def check_views(names: Sequence[str], *, field: str = "verdict.views") -> tuple[View, ...]:
    """Return the views of these names, in their order.

    Args:
        names: The names.
        field: The field of the config that holds them, for messages.

    Raises:
        InputError: No name, an unknown one, or one that stands twice.
    """
    hint = f"Known views: {', '.join(VIEWS)}."
    if not names:
        raise InputError(f"{field}: got no view, expected at least one", hint=hint)
    for place, name in enumerate(names):
        if name not in VIEWS:
            raise InputError(f"{field}: got {name!r}, expected the name of a view", hint=hint)
        if name in names[:place]:
            raise InputError(f"{field}: got {name!r} twice, expected each view once", hint=hint)
    return tuple(VIEWS[name] for name in names)
