"""Find tasks that say nearly the same."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.distance import Indel

ROUGE_L_BAR: Final = 0.7
"""ROUGE-L (F1 over words) from which two tasks are near-duplicates, as in Self-Instruct."""

TOKEN_SET_BAR: Final = 0.9
"""Token-set ratio from which they are. It finds the same words in another order; it runs high for short
questions, which share "what is the" with a hundred others, hence the higher bar."""

MAX_ROWS: Final = 5_000
"""Rows that are compared with each other: the work grows with their square (here about 10 s)."""

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
    token_set: float


def words(text: str) -> list[str]:
    """Return the words of a text in lower case; signs if it has no words."""
    lowered = text.casefold()
    return _WORD.findall(lowered) or list("".join(lowered.split()))


def near_duplicates(
    texts: Sequence[str], rouge_l_bar: float = ROUGE_L_BAR, token_set_bar: float = TOKEN_SET_BAR
) -> Iterator[Near]:
    """Yield every pair of texts at or above either bar.

    ROUGE-L's F1 is ``2 LCS / (m + n)`` over words, which is the normalised Indel similarity of the word
    sequences. Each distinct word becomes one character, so that the comparison runs in C.
    """
    split = [words(text) for text in texts]
    codes: dict[str, str] = {}
    for word in (word for row in split for word in row):
        codes.setdefault(word, chr(_FIRST_CODE + len(codes) % _CODES))
    coded = ["".join(codes[word] for word in row) for row in split]
    joined = [" ".join(row) for row in split]
    for start in range(0, len(texts), _BLOCK):
        block = slice(start, start + _BLOCK)
        # Columns before the block were compared when they were rows.
        rouge = process.cdist(
            coded[block], coded[start:], scorer=Indel.normalized_similarity, score_cutoff=rouge_l_bar, dtype=np.float32
        )
        token = process.cdist(
            joined[block], joined[start:], scorer=fuzz.token_set_ratio, score_cutoff=token_set_bar * 100
        )
        for row, column in zip(*np.nonzero((rouge > 0) | (token > 0)), strict=True):
            if row < column:
                yield Near(
                    start + int(row), start + int(column), float(rouge[row, column]), float(token[row, column]) / 100
                )
