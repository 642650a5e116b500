"""Find tasks that say nearly the same."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel
from scipy import sparse

ROUGE_L_BAR: Final = 0.7
"""ROUGE-L (F1 over words) from which two tasks are near-duplicates, as in Self-Instruct."""

SHARED_WORDS_BAR: Final = 0.8
"""Share of common words from which they are: finds the same words in another order, which ROUGE-L misses.
Character-wise ratios (RapidFuzz's token set) ran high for any two short questions and took minutes for long tasks."""

MAX_ROWS: Final = 5_000
"""Rows that are compared with each other: the work grows with their square."""

_BLOCK: Final = 512
_WORD = re.compile(r"\w+")
# Words are mapped to single characters from here on; beyond the surrogates, which are no characters.
_FIRST_CODE: Final = 0xE000
_CODES: Final = 0x110000 - _FIRST_CODE


class Near(NamedTuple):
    """Two rows that say nearly the same, by position, the earlier first."""

    first: int
    second: int
    rouge_l: float
    shared_words: float


def words(text: str) -> list[str]:
    """Return the words of a text in lower case; its signs if it has no words."""
    lowered = text.casefold()
    return _WORD.findall(lowered) or list("".join(lowered.split()))


def near_duplicates(
    texts: Sequence[str], rouge_l_bar: float = ROUGE_L_BAR, shared_words_bar: float = SHARED_WORDS_BAR
) -> Iterator[Near]:
    """Yield every pair of texts at or above either bar.

    ROUGE-L's F1 is ``2 LCS / (m + n)`` over words, which is the normalised Indel similarity of the word
    sequences: each distinct word becomes one character, so that the comparison runs in C. The share of common words
    is ``2 |A & B| / (|A| + |B|)`` over the sets of words.
    """
    split = [words(text) for text in texts]
    codes: dict[str, int] = {}
    rows = [[codes.setdefault(word, len(codes)) for word in row] for row in split]
    coded = ["".join(chr(_FIRST_CODE + code % _CODES) for code in row) for row in rows]
    sets = [sorted(set(row)) for row in rows]
    sizes = np.array([len(row) for row in sets], dtype=np.float32)
    places = (np.repeat(np.arange(len(sets)), sizes.astype(int)), np.array([code for row in sets for code in row], int))
    bags = sparse.csr_array((np.ones(len(places[1]), dtype=np.float32), places), shape=(len(sets), max(len(codes), 1)))
    for start in range(0, len(texts), _BLOCK):
        block = slice(start, start + _BLOCK)
        # Columns before the block were compared when they were rows.
        rouge = process.cdist(
            coded[block], coded[start:], scorer=Indel.normalized_similarity, score_cutoff=rouge_l_bar, dtype=np.float32
        )
        shared = 2 * (bags[block] @ bags[start:].T).toarray() / (sizes[block, None] + sizes[None, start:])
        for row, column in zip(*np.nonzero((rouge > 0) | (shared >= shared_words_bar)), strict=True):
            if row < column:
                yield Near(start + int(row), start + int(column), float(rouge[row, column]), float(shared[row, column]))
