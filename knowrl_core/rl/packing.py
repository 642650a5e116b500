"""Prefix packing: what several responses or several prompts begin with is computed once.

A pass holds one flat sequence of ``T`` tokens. Prompts of the same template begin alike: their common beginning is a
*root*. Behind it stand *units*, each the rest of a prompt with a trie of its responses::

    tokens     r r r r | p p p a a a b b | q q c c d |
    position   0 1 2 3 | 4 5 6 7 8 9 8 9 | 4 5 6 7 6 |
    parent     - 0 1 2 | 3 4 5 6 7 8 7 . | 3 . . . . |      the token that it follows

A token sees its ancestors and itself and nothing else, at the positions that they would have in a sequence of their
own. So every response token gets the logits, and every weight the gradient, of the plain form of one sequence a
response. Computed once are therefore

* the common beginning of prompts (instructions, few-shot examples),
* each prompt, whatever the number of its responses,
* what responses to a prompt have in common; constrained verdicts have only two forms altogether,
* the logits of a token, whatever the number of responses that go on from it.

The last token of a response predicts nothing that is trained on and is left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from knowrl_core.rl.tree import PackedPass, Unit, lay_out

SHORTEST_ROOT: Final = 8
"""A common beginning with fewer tokens is not worth a block of its own."""


@dataclass(frozen=True, slots=True)
class PromptUnit:
    """A prompt with its responses: what packing never splits."""

    prompt: tuple[int, ...]
    """Prompt tokens."""
    responses: tuple[tuple[int, ...], ...]
    """Response tokens, one entry a verdict; the same response may occur several times."""
    cells: tuple[int, ...]
    """For each verdict, where its first token stands in the flat token arrays of :class:`Experience`."""

    @property
    def packed_length(self) -> int:
        """Tokens that this unit takes in a packed sequence by itself."""
        return len(self.prompt) + len({r[:end] for r in self.responses for end in range(1, len(r))})

    @property
    def plain_length(self) -> int:
        """Tokens that it would take with one sequence a response."""
        return sum(len(self.prompt) + len(response) for response in self.responses)


def pack(units: Iterable[PromptUnit], token_budget: int) -> list[PackedPass]:
    """Distribute units over passes of at most ``token_budget`` tokens each.

    Units are put in the order of their prompts, so that those with a common beginning stand together.

    Args:
        units: Prompts with their responses.
        token_budget: Most packed tokens of a pass. A unit above it gets a pass of its own.

    Returns:
        The passes. The result depends on the arguments only.
    """
    passes: list[list[Family]] = []
    room = 0
    for family in _families(sorted(units, key=lambda unit: (unit.prompt, unit.cells))):
        part: Family | None = None  # what the newest pass holds of this family
        for unit in family.members:
            own = unit.packed_length - family.root
            if part is None or own > room:
                if not passes or own + family.root > room:
                    passes.append([])
                    room = token_budget
                part = Family(family.root, [])
                passes[-1].append(part)
                room -= family.root
            part.members.append(unit)
            room -= own
    return [_lay_out(families) for families in passes]


@dataclass(slots=True)
class Family:
    """Units whose prompts begin alike."""

    root: int
    """Length of the common beginning; 0 for none."""
    members: list[PromptUnit]
    """At least one."""


def _families(units: Iterable[PromptUnit]) -> list[Family]:
    """Cut sorted units into families. A unit joins the one before it if that saves at least as many tokens with it."""
    families: list[Family] = []
    for unit in units:
        if families:
            family = families[-1]
            first = family.members[0].prompt
            # Each unit keeps its last prompt token for itself: it predicts the first token of the responses.
            bound = min(len(unit.prompt), len(first)) - 1
            if len(family.members) > 1:
                bound = min(bound, family.root)
            shared = _common(unit.prompt, first, bound)
            if shared >= SHORTEST_ROOT and len(family.members) * shared >= (len(family.members) - 1) * family.root:
                family.root = shared
                family.members.append(unit)
                continue
        families.append(Family(0, [unit]))
    return families


def _common(first: tuple[int, ...], second: tuple[int, ...], bound: int) -> int:
    """Length of the common beginning, at most ``bound``."""
    pairs = zip(first[:bound], second[:bound], strict=True)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), bound)


def _lay_out(families: Iterable[Family]) -> PackedPass:
    units: list[Unit] = []
    for family in families:
        # A root that a single unit of this pass needs is simply the beginning of its prompt.
        shared = family.root if len(family.members) > 1 else 0
        context = Unit(None, family.members[0].prompt[:shared], (), ()) if shared else None
        units += [context] if context is not None else []
        units += [Unit(context, unit.prompt[shared:], unit.responses, unit.cells) for unit in family.members]
    return lay_out(units)
