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

from knowrl_core.prefixes import families
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
    ordered = sorted(units, key=lambda unit: (unit.prompt, unit.cells))
    passes: list[list[_Part]] = []
    room = 0
    for family in families([unit.prompt for unit in ordered], shortest=SHORTEST_ROOT):
        part: _Part | None = None  # what the newest pass holds of this family
        for unit in (ordered[place] for place in family.members):
            own = unit.packed_length - family.root
            if part is None or own > room:
                if not passes or own + family.root > room:
                    passes.append([])
                    room = token_budget
                part = _Part(family.root, [])
                passes[-1].append(part)
                room -= family.root
            part.members.append(unit)
            room -= own
    return [_lay_out(parts) for parts in passes]


@dataclass(slots=True)
class _Part:
    """What a pass holds of units whose prompts begin alike."""

    root: int
    """Length of the common beginning; 0 for none."""
    members: list[PromptUnit]
    """At least one."""


def _lay_out(parts: Iterable[_Part]) -> PackedPass:
    units: list[Unit] = []
    for part in parts:
        # A root that a single unit of this pass needs is simply the beginning of its prompt.
        shared = part.root if len(part.members) > 1 else 0
        context = Unit(None, part.members[0].prompt[:shared], (), ()) if shared else None
        units += [context] if context is not None else []
        units += [Unit(context, unit.prompt[shared:], unit.responses, unit.cells) for unit in part.members]
    return lay_out(units)
