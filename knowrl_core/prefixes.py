"""Sequences that begin alike, so that their common beginning can be computed once.

Prompts of one template in one view are such a family; those of another label order begin otherwise and are another.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Sequences that begin alike."""

    root: int
    """Length of the common beginning; 0 for a sequence that stands alone."""
    members: tuple[int, ...]
    """Their places among all sequences, at least one."""


def families(sequences: Sequence[Sequence[int]], *, shortest: int) -> list[Family]:
    """Part sequences into families; each is in one of them.

    In sorted order a sequence joins the family before it if the common beginning, which it may shorten, then saves at
    least as many tokens as without it. Each keeps its last token for itself: that one must give logits of its own.

    Args:
        sequences: Token ids, none empty.
        shortest: A common beginning with fewer tokens is worth nothing.

    Returns:
        The families, and their members, in the sorted order of the sequences.
    """
    found: list[tuple[int, list[int]]] = []
    for place in sorted(range(len(sequences)), key=lambda place: tuple(sequences[place])):
        if found:
            root, members = found[-1]
            first, own = sequences[members[0]], sequences[place]
            bound = min(len(first), len(own)) - 1
            if len(members) > 1:
                bound = min(bound, root)
            shared = _common(first, own, bound)
            if shared >= shortest and len(members) * shared >= (len(members) - 1) * root:
                found[-1] = (shared, [*members, place])
                continue
        found.append((0, [place]))
    return [Family(root, tuple(members)) for root, members in found]


def _common(first: Sequence[int], second: Sequence[int], bound: int) -> int:
    """Length of the common beginning, at most ``bound``."""
    pairs = zip(first[:bound], second[:bound], strict=True)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), bound)
