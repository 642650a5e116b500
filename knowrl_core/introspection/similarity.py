"""How alike two tasks are, and which stored task is most alike.

ROUGE-L (Lin 2004) between word sequences of ``m`` and ``n`` words with a longest common subsequence of ``l`` words has
precision ``l / n``, recall ``l / m`` and so F1 ``2 l / (m + n)``.
"""

from collections import defaultdict
from collections.abc import Sequence
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


_WORDS_AT_A_TIME: Final = 1 << 17
"""Bounds the memory of a search for many texts."""


class Match(NamedTuple):
    """A stored task and how alike it is: ROUGE-L F1, 0 to 1."""

    id: str
    similarity: float


class SimilarityIndex(Protocol):
    """Stored tasks that can be searched."""

    def add(self, task_id: str, text: str) -> None:
        """Store a task."""
        ...

    def expect(self, texts: Sequence[str], at_least: float) -> None:
        """Prepare for the search for these texts; it changes nothing but the time that takes."""
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
        # By text: its words as they were, the first task that was not searched ahead, and what was found before it.
        self._ahead: dict[str, tuple[_Text, int, NDArray[np.int64]]] = {}

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

    def expect(self, texts: Sequence[str], at_least: float) -> None:
        """Search ahead for texts that :meth:`nearest` will be asked for; all at once, it takes a fraction of the time.

        Tasks that are stored in between are found, too: they are looked at one by one.
        """
        self._file(at_least)
        self._ahead = {}
        by_length = defaultdict(list)
        for text in texts if self._pairs.stop else ():
            query = self._query(text)
            if query.words:
                by_length[len(query.words)].append((text, query))
        for length, group in sorted(by_length.items()):
            # The longer the texts, the more there is to look up for each.
            step = max(1, _WORDS_AT_A_TIME // length**2)
            for part in (group[at : at + step] for at in range(0, len(group), step)):
                found = self._pairs.candidates(np.array([query.words for _, query in part], dtype=np.int32))
                if found is not None:
                    self._remember([text for text, _ in part], [query for _, query in part], *found)

    def _remember(
        self, texts: list[str], queries: list[_Text], row: NDArray[np.int64], places: NDArray[np.int64]
    ) -> None:
        unknown = np.array([query.unknown for query in queries])[row]
        bitmaps = np.array([query.bitmap for query in queries])[row]
        near, _ = self._passing(len(queries[0].words), unknown, bitmaps, places)
        near = near[np.argsort(row[near], kind="stable")]
        parts = np.split(places[near], np.searchsorted(row[near], np.arange(1, len(texts))))
        for text, query, part in zip(texts, queries, parts, strict=True):
            self._ahead[text] = query, self._pairs.stop, part

    def nearest(self, text: str, at_least: float) -> Match | None:
        """The stored task with the highest similarity, if that is ``at_least``; the one stored first among equals."""
        self._file(at_least)
        query, stop, filed = self._ahead.get(text, (None, 0, np.empty(0, dtype=np.int64)))
        ahead = query is not None
        if query is None or query.unknown:  # a task that was stored since may have the unknown words
            query = self._query(text)
        if not query.words:
            return None
        if not ahead and (found := self._pairs.candidates(np.array([query.words], dtype=np.int32))):
            stop, filed = self._pairs.stop, found[1]
        places = np.concatenate([filed, self._near(query, stop)])
        near, ceilings = self._passing(len(query.words), query.unknown, query.bitmap, places)
        return self._best(query, places[near], ceilings)

    def _file(self, at_least: float) -> None:
        if at_least != self._bounds.at_least:
            self._bounds = Bounds(at_least)
            self._ahead = {}
        if at_least < self._pairs.bounds.at_least:
            self._pairs = PairIndex(self._bounds)
        while len(self) - self._pairs.stop >= RECENT:
            self._pairs.extend(self._words.view, self._ends.view)

    def _query(self, text: str) -> _Text:
        coded = [self._vocabulary.get(word, 0) for word in words(text)]
        return _Text(coded, coded.count(0), np.uint64(_bitmap(coded)))

    def _near(self, query: _Text, start: int) -> NDArray[np.int64]:
        """Look at each task from ``start`` on, and pass those that have as many of the words as any match needs."""
        lacking = np.bitwise_count(query.bitmap & ~self._bitmaps.view[start:])
        length = len(query.words)
        near: NDArray[np.int64] = (lacking <= length - query.unknown - self._least(length)).nonzero()[0]
        return near + start

    def _passing(
        self,
        length: int,
        unknown: NDArray[np.int64] | int,
        bitmap: NDArray[np.uint64] | np.uint64,
        places: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Which places lengths and bitmaps do not rule out, and the highest similarity that each of them can have."""
        # A common subsequence lacks the words that only one text has.
        bitmaps = self._bitmaps.view[places]
        shared = length - unknown - np.bitwise_count(bitmap & ~bitmaps).astype(np.int64)
        # Lengths are read of these only, since reading memory is what takes time.
        near = (shared >= self._least(length)).nonzero()[0]
        lengths = self._lengths.view[places[near]]
        most = np.minimum(shared[near], lengths - np.bitwise_count(bitmaps & ~bitmap)[near])
        passing = (most >= self._bounds.need(length + self._longest)[length + lengths]).nonzero()[0]
        return near[passing], 2 * most[passing] / (length + lengths[passing])

    def _least(self, length: int) -> int:
        """Fewest words that a text shares with a match of any length."""
        total = length + self._bounds.shortest(length)
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
