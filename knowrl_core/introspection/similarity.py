"""How alike two tasks are, and which stored task is most alike.

ROUGE-L (Lin 2004) between word sequences of ``m`` and ``n`` words with a longest common subsequence of ``l`` words has
precision ``l / n``, recall ``l / m`` and so F1 ``2 l / (m + n)``.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from rapidfuzz.distance import LCSseq

from knowrl_core.seeds.duplicates import words


class Match(NamedTuple):
    """A stored task and how alike it is: ROUGE-L F1, 0 to 1."""

    id: str
    similarity: float


class SimilarityIndex(Protocol):
    """Stored tasks that can be searched."""

    def add(self, task_id: str, text: str) -> None:
        """Store a task."""
        ...

    def nearest(self, text: str, at_least: float) -> Match | None:
        """The stored task with the highest similarity, if that is ``at_least``; the one stored first among equals."""
        ...


def rouge_l_f1(first: Sequence[str], second: Sequence[str]) -> float:
    """ROUGE-L F1 of two word sequences, 0 to 1; 0 if either is empty.

    The definition, which :class:`ExactIndex` is tested against; the index has its own form on coded words.
    """
    if not first or not second:
        return 0.0
    return 2 * LCSseq.similarity(first, second) / (len(first) + len(second))


class ExactIndex:
    """Compares with every stored task that could match.

    A common subsequence cannot be longer than the shorter text, nor than the number of words that both hold (counted as
    often as they occur). Both bounds are computed by the same formula as the score itself, so skipping by them never
    changes a decision.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._words: list[list[int]] = []
        # Word -> (stored task, occurrences in it).
        self._postings: dict[int, list[tuple[int, int]]] = defaultdict(list)
        # Words become small integers: rapidfuzz compares by hash, and only integers cannot collide.
        self._vocabulary: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, task_id: str, text: str) -> None:
        """Store a task."""
        coded = [self._vocabulary.setdefault(word, len(self._vocabulary) + 1) for word in words(text)]
        for word, count in Counter(coded).items():
            self._postings[word].append((len(self._ids), count))
        self._ids.append(task_id)
        self._words.append(coded)

    def nearest(self, text: str, at_least: float) -> Match | None:
        """The stored task with the highest similarity, if that is ``at_least``; the one stored first among equals."""
        # Words that no stored task has cannot be part of a common subsequence; all of them are 0.
        coded = [self._vocabulary.get(word, 0) for word in words(text)]
        shared: Counter[int] = Counter()
        for word, count in Counter(coded).items():
            for place, stored in self._postings.get(word, ()):
                shared[place] += min(count, stored)
        best: Match | None = None
        # Before the sort, since most stored tasks share only a word or two.
        near = (i for i, count in shared.items() if 2 * count / (len(coded) + len(self._words[i])) >= at_least)
        for place in sorted(near):
            other = self._words[place]
            total = len(coded) + len(other)
            bar = at_least if best is None else best.similarity
            if 2 * min(len(coded), len(other)) / total < bar or 2 * shared[place] / total < bar:
                continue
            score = 2 * LCSseq.similarity(coded, other) / total
            if score >= at_least and (best is None or score > best.similarity):
                best = Match(self._ids[place], score)
        return best
