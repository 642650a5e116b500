"""How alike two tasks are, and which stored task is most alike.

ROUGE-L (Lin 2004) between word sequences of ``m`` and ``n`` words with a longest common subsequence of ``l`` words has
precision ``l / n``, recall ``l / m`` and so F1 ``2 l / (m + n)``.
"""

from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq

from knowrl_core.introspection.bounds import Bounds
from knowrl_core.introspection.columns import Column
from knowrl_core.introspection.pairs import PairIndex
from knowrl_core.seeds.duplicates import words

RECENT: Final = 4096
"""Tasks that are looked at one by one, some 10 microseconds in all, before they are filed."""


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


class _Text(NamedTuple):
    """A text that is searched for: its words, how many of them no stored task has, and the bitmap of the others."""

    words: list[int]
    unknown: int
    bitmap: np.uint64


class WordIndex:
    """Finds exactly what comparing with every stored task would, without doing so.

    Three filters follow each other, and none refuses a match:

    1. Tasks that do not share two of the first few words, rare ones first, are not looked at (:class:`PairIndex`).
    2. The others, and the most recent ones, are compared by a bitmap of 64 bits: each bit that only one of two texts
       has is a word that the other lacks.
    3. What is left is compared by its longest common subsequence.

    A search takes about the same time at any size as long as tasks differ in their rare words. It grows with the number
    of tasks that share their rarest words: the worst case, all tasks made of the same few words in another order, is
    that of all pairs. A task of 12 words takes some 300 bytes beside its id, and twice that for a moment now and then.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        # Words become small integers: rapidfuzz compares by hash, and only integers cannot collide.
        self._vocabulary: dict[str, int] = {}
        self._words = Column(np.int32)
        self._ends = Column(np.int64)
        self._ends.append([0])
        self._end = 0
        self._lengths = Column(np.int32)
        self._bitmaps = Column(np.uint64)
        self._longest = 0
        self._bounds = Bounds(1.0)
        self._pairs = PairIndex(self._bounds)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, task_id: str, text: str) -> None:
        """Store a task."""
        coded = [self._vocabulary.setdefault(word, len(self._vocabulary) + 1) for word in words(text)]
        self._ids.append(task_id)
        self._end += len(coded)
        self._words.append(coded)
        self._ends.append([self._end])
        self._lengths.append([len(coded)])
        self._bitmaps.append([_bitmap(coded)])
        self._longest = max(self._longest, len(coded))

    def nearest(self, text: str, at_least: float) -> Match | None:
        """The stored task with the highest similarity, if that is ``at_least``; the one stored first among equals."""
        coded = [self._vocabulary.get(word, 0) for word in words(text)]
        if not coded:
            return None
        if at_least != self._bounds.at_least:
            self._bounds = Bounds(at_least)
        if at_least < self._pairs.bounds.at_least:
            self._pairs = PairIndex(self._bounds)
        while len(self) - self._pairs.stop >= RECENT:
            self._pairs.extend(self._words.view, self._ends.view)
        query = _Text(coded, coded.count(0), np.uint64(_bitmap(coded)))
        filed = self._pairs.candidates(np.array(coded, dtype=np.int32))
        if filed is None:
            return self._best(query, *self._passing(query, self._near(query, 0)))
        places = np.concatenate([filed, self._near(query, self._pairs.stop)])
        return self._best(query, *self._passing(query, places))

    def _near(self, query: _Text, start: int) -> NDArray[np.int64]:
        """Look at each task from ``start`` on, and pass those that have as many of the words as any match needs."""
        lacking = np.bitwise_count(query.bitmap & ~self._bitmaps.view[start:])
        return np.flatnonzero(lacking <= len(query.words) - query.unknown - self._least(query)) + start

    def _passing(self, query: _Text, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The places that lengths and bitmaps do not rule out, and the highest similarity that each can have."""
        length = len(query.words)
        # A common subsequence lacks the words that only one text has.
        bitmaps = self._bitmaps.view[places]
        shared = length - query.unknown - np.bitwise_count(query.bitmap & ~bitmaps).astype(np.int64)
        # Lengths are read of these only, since reading memory is what takes time.
        near = np.flatnonzero(shared >= self._least(query))
        places = places[near]
        lengths = self._lengths.view[places]
        most = np.minimum(shared[near], lengths - np.bitwise_count(bitmaps[near] & ~query.bitmap))
        passing = np.flatnonzero(most >= self._bounds.need(length + self._longest)[length + lengths])
        return places[passing], 2 * most[passing] / (length + lengths[passing])

    def _least(self, query: _Text) -> int:
        """Fewest words that a match of any length shares."""
        total = len(query.words) + self._bounds.shortest(len(query.words))
        return int(self._bounds.need(total)[total])

    def _best(self, query: _Text, places: NDArray[np.int64], ceilings: NDArray[np.float64]) -> Match | None:
        """Compare by longest common subsequence: the most promising first, so that the others need not be."""
        if not len(places):
            return None
        order = np.lexsort((places, -ceilings))
        places = places[order]
        starts, stops = self._ends.view[places].tolist(), self._ends.view[places + 1].tolist()
        stored = self._words.view
        best, at, before = 0.0, -1, -1
        for place, ceiling, start, stop in zip(places.tolist(), ceilings[order].tolist(), starts, stops, strict=True):
            if ceiling < best:
                break
            if place == before:  # several word pairs found it
                continue
            before = place
            score = 2 * LCSseq.similarity(query.words, stored[start:stop].tolist()) / (len(query.words) + stop - start)
            if score >= self._bounds.at_least and (score > best or (score == best and place < at)):
                best, at = score, place
        return None if at < 0 else Match(self._ids[at], best)


def _bitmap(coded: list[int]) -> int:
    bitmap = 0
    for word in coded:
        if word:
            bitmap |= 1 << (word & 63)
    return bitmap
