"""What ROUGE-L at or above a bar implies for two word sequences of ``m`` and ``n`` words.

With a longest common subsequence of ``l`` words, ROUGE-L is ``2 l / (m + n)``, so ``l`` must reach a least value
``need(m + n)``. The two then share at least as many words, counted as often as they occur, and this is what the filters
here use (Xiao et al. 2008, PPJoin; Wang et al. 2012, AdaptJoin): whatever fixed order the words of both are sorted in,
the first ``need`` words that are shared have ``need - 1`` more behind the first and ``need - 2`` behind the second, so

- the first shared word is among the first ``m - need + 1`` of one and the first ``n - need + 1`` of the other;
- the second is among the first ``m - need + 2`` and ``n - need + 2`` (if ``need`` is 2 or more).

If the order puts rare words first, hardly any two texts share two words there but near-duplicates.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_PAIRED: Final = 24
"""Widest prefix whose pairs of words are stored (276 pairs); longer texts are found by single words."""


class Pairs(NamedTuple):
    """Pairs of places in the sorted words of a text. A word with itself is a single word."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]


class Bounds:
    """The bounds of one bar, for texts of any length but 0."""

    def __init__(self, at_least: float) -> None:
        self.at_least = at_least
        self._need = np.zeros(0, dtype=np.int64)
        self._shortest: dict[int, int] = {}

    def need(self, longest_total: int) -> NDArray[np.int64]:
        """Least common subsequence by the number of words of both texts, up to at least ``longest_total``.

        Equal to the comparison ``2 * l / total >= at_least`` in floating point for every ``l``.
        """
        if len(self._need) <= longest_total:
            total = np.arange(max(256, 2 * longest_total), dtype=np.int64)
            total[0] = 1
            need = np.ceil(self.at_least * total / 2).astype(np.int64)
            # Rounding may put the product on the wrong side of an integer.
            need -= 2 * (need - 1) / total >= self.at_least
            need += 2 * need / total < self.at_least
            self._need = np.maximum(need, 1)
        return self._need

    def shortest(self, length: int) -> int:
        """Fewest words of a text that can match one of ``length`` words."""
        if length not in self._shortest:
            need = self.need(2 * length)
            other = np.arange(1, length + 1)
            self._shortest[length] = int(other[other >= need[length + other]][0])
        return self._shortest[length]

    def stored(self, length: int) -> Pairs:
        """The pairs under which a text is stored: those that find it from a text of any length."""
        # The shorter the other text, the further back the shared words may be.
        shortest = self.shortest(length)
        least = self._least(shortest, length)
        if not self._paired(length):
            return Pairs(np.arange(length - least + 1), np.arange(length - least + 1))
        first, second = np.triu_indices(self.reach(shortest, length) + 1, 1)
        if least > 1:
            return Pairs(first, second)
        # One shared word may be enough, so there need not be a pair.
        return Pairs(np.append(first, np.arange(length)), np.append(second, np.arange(length)))

    def asked(self, length: int, other: int) -> Pairs:
        """The pairs of a text of ``length`` words that find any match of ``other`` words; none if there can be none."""
        least = self._least(length, other)
        if least > min(length, other):
            return Pairs(np.arange(0), np.arange(0))
        if least > 1 and self._paired(other):
            return Pairs(*np.triu_indices(length - least + 2, 1))
        return Pairs(np.arange(length - least + 1), np.arange(length - least + 1))

    def reach(self, length: int, other: int) -> int:
        """Last second place of a pair in a text of ``other`` words at which one of ``length`` words may find it."""
        least = self._least(length, other)
        return other - 1 if least == 1 else other - least + self._paired(other)

    def _least(self, length: int, other: int) -> int:
        return int(self.need(length + other)[length + other])

    def _paired(self, length: int) -> bool:
        """Whether a text of this length is stored by pairs."""
        return length - max(self._least(self.shortest(length), length), 2) + 2 <= MOST_PAIRED
