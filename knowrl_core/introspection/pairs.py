"""An index of the word pairs that any near-duplicate of a stored task must share with it.

The words of each task are sorted, rare ones first, and a match shares two of the first few (:mod:`.bounds`). So a
task is stored under each pair of these, and a search looks up its own pairs. What is stored is not the key but an
entry of 32 bits in the bucket that the key is hashed to: the task, the place of the pair's second word, and what the
key leaves open of the task's length. Place and length limit what can match. Another key in the same bucket only adds
a candidate, which the caller's filters refuse. The hash has fixed constants: it is the same in every process.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowrl_core.introspection.bounds import Bounds, Pairs
from knowrl_core.introspection.columns import Column

GROWTH: Final = 3
"""A block is merged into the new one behind it unless it is more than this many times as large."""

LOOKUP_COST: Final = 8
"""One lookup takes as long as looking at this many tasks."""

# Odd random constants: a sum of products, cut to its top bits, is a universal hash (Dietzfelbinger et al. 1997).
_FIRST: Final = np.uint64(0x9E3779B97F4A7C15)
_SECOND: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_LENGTH: Final = np.uint64(0xD6E8FEB86659FD93)
_KEYS_AT_A_TIME: Final = 1 << 20

# An entry, from the top: rest of the length, place, task within its block.
_REST_BITS: Final = 3
_PLACE_BITS: Final = 5
_UPPER_BITS: Final = _REST_BITS + _PLACE_BITS
_TASK_BITS: Final = 32 - _UPPER_BITS
_LAST_PLACE: Final = (1 << _PLACE_BITS) - 1
"""Stands for all later places, too: only single words of long texts have these."""


class _Block(NamedTuple):
    """Tasks that were filed together."""

    start: int
    stop: int
    entries: int  # number of entries before those of this block
    ends: int  # likewise of the buckets' ends
    shift: int  # from a hash to the bucket and the upper bits of an entry


class _Plan(NamedTuple):
    """What texts of one length look up: pairs of places, and the hash share of the lengths that can match.

    ``counts`` says for each lookup which entries count, by their upper bits: shape [lookups, 256].
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    lengths: NDArray[np.uint64]
    counts: NDArray[np.bool_]


class PairIndex:
    """The first ``stop`` stored tasks, in blocks whose sizes grow geometrically: few to search, and each rarely made.

    Entries are counted in 32 bits, which is enough for some 100 million tasks.

    Args:
        bounds: Bounds for the lowest bar that will be asked for.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.stop = 0
        self._blocks: list[_Block] = []
        self._entries = Column(np.uint32)
        self._ends = Column(np.uint32)  # of each bucket's entries
        self._rank = np.zeros(1, dtype=np.int32)
        self._lengths: set[int] = set()
        self._plans: dict[int, _Plan | None] = {}

    def extend(self, words: NDArray[np.int32], ends: NDArray[np.int64]) -> None:
        """File the tasks from ``stop`` on, up to 16 million of them.

        Args:
            words: Words of all tasks from the first, in a row, as integers above 0; new ones have higher ones.
            ends: Shape [tasks + 1]: where each task's words begin, and where the last end.
        """
        ends = ends[: self.stop + (1 << _TASK_BITS) + 1]
        start, self.stop = self.stop, len(ends) - 1
        while self._blocks and self._blocks[-1].stop - self._blocks[-1].start <= GROWTH * (self.stop - start):
            if self.stop - self._blocks[-1].start > 1 << _TASK_BITS:
                break
            start, _, entries, buckets, _ = self._blocks.pop()
            self._entries.cut(entries)
            self._ends.cut(buckets)
        if not self._blocks:
            counts = np.bincount(words, minlength=1)
            self._rank = np.empty(len(counts), dtype=np.int32)
            self._rank[np.argsort(counts, kind="stable")] = np.arange(len(counts), dtype=np.int32)
        self._file(start, words, ends)

    def candidates(self, words: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """All tasks that may match, as texts and numbers of tasks; ``None`` if looking at each task is as quick.

        Args:
            words: Texts of the same length, as integers, those that no stored task has as 0: shape [texts, words].

        Returns:
            Two arrays of the same length. A task may be there several times, and the order is any.
        """
        length = words.shape[1]
        if length not in self._plans:
            self._plans[length] = self._plan(length)
        plan = self._plans[length]
        if plan is None:
            return None
        lookups = len(plan.first)
        heads, tails = _hashes(self._sorted(words))
        hashes = heads[:, plan.first] + tails[:, plan.second] + plan.lengths
        starts, _, _, buckets, shifts = np.array(self._blocks).T
        keys = (hashes.ravel() >> shifts.astype(np.uint64)[:, None]).view(np.int64)  # shape [blocks, texts * lookups]
        bucket = ((keys >> _UPPER_BITS) + buckets[:, None]).ravel()
        low = self._ends.view[bucket].astype(np.int64)
        number = self._ends.view[bucket + 1] - low
        after = np.cumsum(number)
        # One element an entry from here on.
        lookup = np.repeat(np.arange(keys.size), number)
        entries = self._entries.view[(low - after + number)[lookup] + np.arange(len(lookup))]
        upper = keys & (1 << _UPPER_BITS) - 1 | np.tile(np.arange(lookups) << _UPPER_BITS, len(words))
        found = np.flatnonzero(plan.counts.take(upper.ravel()[lookup] ^ entries >> np.uint32(_TASK_BITS)))
        block, lookup = np.divmod(lookup[found], hashes.size)
        tasks = starts[block] + (entries[found] & ((1 << _TASK_BITS) - 1))
        return lookup // lookups, tasks

    def _file(self, start: int, words: NDArray[np.int32], ends: NDArray[np.int64]) -> None:
        """Make a block of the tasks from ``start`` on."""
        lengths = np.diff(ends[start:])
        distinct, numbers = np.unique(lengths[lengths > 0], return_counts=True)
        # Texts without words come first in the order, and are left out: nothing is like them.
        order = np.argsort(lengths, kind="stable")[len(lengths) - numbers.sum() :]
        stored = [self.bounds.stored(length) for length in distinct.tolist()]
        size = sum(number * len(pairs.first) for number, pairs in zip(numbers.tolist(), stored, strict=True))
        bits = max((2 * size // 3).bit_length(), 1)
        keys = np.empty(size, dtype=np.uint64)
        filled = 0
        for tasks, pairs, length in zip(np.split(order, np.cumsum(numbers)), stored, distinct, strict=False):
            for part in np.array_split(tasks, 1 + len(tasks) * len(pairs.first) // _KEYS_AT_A_TIME):
                made = self._keys(words[ends[start + part, None] + np.arange(length)], pairs, bits)
                made |= part.astype(np.uint64)[:, None]
                keys[filled : filled + made.size] = made.ravel()
                filled += made.size
        keys.sort()
        before = len(self._entries.view)
        self._blocks.append(_Block(start, self.stop, before, len(self._ends.view), 64 - bits - _UPPER_BITS))
        self._entries.extend(keys)
        keys >>= np.uint64(32)
        counts = np.bincount(keys.view(np.int64), minlength=1 << bits)
        self._ends.append([before])
        counts[0] += before
        self._ends.extend(np.cumsum(counts, out=counts))
        # Plans stay good as long as there are no new lengths; more of them may pay.
        stay = self._lengths.issuperset(distinct.tolist())
        self._lengths.update(distinct.tolist())
        self._plans = {length: plan for length, plan in self._plans.items() if stay and plan is not None}

    def _keys(self, words: NDArray[np.int32], pairs: Pairs, bits: int) -> NDArray[np.uint64]:
        """Bucket and entry without the task, as the halves of one number: shape [tasks, pairs]."""
        heads, tails = _hashes(self._sorted(words))
        # An array even for one length: numpy warns of the intended overflow in scalars only.
        lengths, rest = _split(np.array([words.shape[1]]))
        upper = rest << _PLACE_BITS | np.minimum(pairs.second, _LAST_PLACE)
        keys = heads[:, pairs.first] + tails[:, pairs.second] + lengths
        keys >>= np.uint64(64 - bits - _UPPER_BITS)
        # The bits below those of the bucket are mixed in, so that most other keys of the bucket look like no place.
        keys ^= upper.astype(np.uint64)
        low = keys & np.uint64((1 << _UPPER_BITS) - 1)
        return keys >> np.uint64(_UPPER_BITS) << np.uint64(32) | low << np.uint64(_TASK_BITS)

    def _sorted(self, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """Each row's words from rare to common, as ranks; those that came after the ranks were made are rarest."""
        ranks = np.where(words < len(self._rank), self._rank.take(words, mode="clip"), -words)
        # Words that no stored task has find nothing; they come first, as they need not be found.
        ranks[words == 0] = np.iinfo(np.int32).min
        ranks.sort(axis=1)
        return ranks

    def _plan(self, length: int) -> _Plan | None:
        asked: list[tuple[Pairs, int]] = []
        cost = 0
        for other in sorted(self._lengths):
            asked.append((self.bounds.asked(length, other), other))
            cost += LOOKUP_COST * len(asked[-1][0].first)
            if cost >= self.stop or length >> 20:
                return None
        if not asked:
            return None
        rows = np.repeat(np.arange(len(asked)), [len(pairs.first) for pairs, _ in asked])
        first, second = np.concatenate([pairs for pairs, _ in asked], axis=1)
        lengths, rests = _split(np.array([other for _, other in asked]))
        # Neighbouring lengths have the same share and ask for much the same.
        shares, share = np.unique(lengths, return_inverse=True)
        distinct, lookup = np.unique((share[rows] << 20 | first) << 20 | second, return_inverse=True)
        counts = np.zeros((len(distinct), 1 << _UPPER_BITS), dtype=np.bool_)
        ends = np.cumsum([len(pairs.first) for pairs, _ in asked])
        for (_, other), rest, part in zip(asked, rests.tolist(), np.split(lookup, ends), strict=False):
            reach = min(self.bounds.reach(length, other), _LAST_PLACE)
            counts[part, rest << _PLACE_BITS : (rest << _PLACE_BITS) + reach + 1] = True
        place = (1 << 20) - 1
        return _Plan(distinct >> 20 & place, distinct & place, shares[distinct >> 40], counts)


def _split(lengths: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash share of each length, the same for some neighbours if it is 16 or more, and its number among these.

    What is looked up for one length is mostly looked up for the next, too.
    """
    bits = np.clip(np.frexp(lengths)[1] - 4, 0, _REST_BITS)
    return (lengths >> bits << 8 | bits).astype(np.uint64) * _LENGTH, lengths & (1 << bits) - 1


def _hashes(ranks: NDArray[np.int32]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Shares in the hash of sorted rows of words, as the first and the second of a pair. A repeat is another word."""
    places = np.arange(ranks.shape[1])
    begins = np.zeros(ranks.shape, dtype=np.int64)
    np.multiply(places[1:], ranks[:, 1:] != ranks[:, :-1], out=begins[:, 1:])
    times = places - np.maximum.accumulate(begins, axis=1)
    tokens = (ranks + (times << 32)).view(np.uint64)
    return tokens * _FIRST, tokens * _SECOND
