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
    """What texts of one length look up: pairs of places, sorted, and the hash share of the lengths.

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
        self._known = 1  # words below this may be in a stored task
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
        self._known = max(self._known, int(words[ends[start] : ends[-1]].max(initial=0)) + 1)
        self._file(start, words, ends)

    def candidates(self, words: NDArray[np.int32]) -> NDArray[np.int64] | None:
        """Numbers of all tasks that may match, some several times; ``None`` if looking at each is as quick.

        Args:
            words: The text's words as integers, those that no stored task has as 0.
        """
        length = len(words)
        if length not in self._plans:
            self._plans[length] = self._plan(length)
        plan = self._plans[length]
        if plan is None:
            return None
        # Words that no task here has would come first, and find nothing.
        words = words[(words > 0) & (words < self._known)]
        strange = length - len(words)
        begin = int(np.searchsorted(plan.first, strange))
        if begin == len(plan.first):
            return np.empty(0, dtype=np.int64)
        heads, tails = _hashes(self._sorted(words))
        hashes = heads[plan.first[begin:] - strange] + tails[plan.second[begin:] - strange] + plan.lengths[begin:]
        starts, _, _, buckets, shifts = np.array(self._blocks).T
        keys = (hashes >> shifts.astype(np.uint64)[:, None]).view(np.int64).ravel()  # block by block
        bucket = (keys >> _UPPER_BITS) + np.repeat(buckets, len(hashes))
        low = self._ends.view[bucket].astype(np.int64)
        number = self._ends.view[bucket + 1] - low
        after = np.cumsum(number)
        lookup = np.repeat(np.arange(len(keys)), number)
        entries = self._entries.view[(low - after + number)[lookup] + np.arange(after[-1])]
        row = (np.arange(len(keys)) % len(hashes) + begin) << _UPPER_BITS | keys & (1 << _UPPER_BITS) - 1
        found = np.flatnonzero(plan.counts.take(row[lookup] ^ entries >> np.uint32(_TASK_BITS)))
        tasks: NDArray[np.int64] = starts[lookup[found] // len(hashes)] + (entries[found] & ((1 << _TASK_BITS) - 1))
        return tasks

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
        self._lengths.update(distinct.tolist())
        self._plans = {}

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
        """Words in an order from rare to common, as ranks; those that came after the ranks were made are rarest."""
        ranks = np.where(words < len(self._rank), self._rank.take(words, mode="clip"), -words)
        ranks.sort(axis=-1)
        return ranks

    def _plan(self, length: int) -> _Plan | None:
        asked = [(self.bounds.asked(length, other), other) for other in sorted(self._lengths)]
        if not asked or LOOKUP_COST * sum(len(pairs.first) for pairs, _ in asked) >= self.stop:
            return None
        lengths, rests = _split(np.array([other for _, other in asked]))
        keys = [
            np.stack([*pairs, np.full(len(pairs.first), share)])
            for (pairs, _), share in zip(asked, lengths.view(np.int64), strict=True)
        ]
        (first, second, shares), rows = np.unique(np.concatenate(keys, axis=1), axis=1, return_inverse=True)
        counts = np.zeros((len(first), 1 << _UPPER_BITS), dtype=np.bool_)
        ends = np.cumsum([part.shape[1] for part in keys])
        for (_, other), rest, part in zip(asked, rests.tolist(), np.split(rows, ends), strict=False):
            reach = min(self.bounds.reach(length, other), _LAST_PLACE)
            counts[part, rest << _PLACE_BITS : (rest << _PLACE_BITS) + reach + 1] = True
        return _Plan(first, second, shares.view(np.uint64), counts)


def _split(lengths: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash share of each length, the same for some neighbours if it is 16 or more, and its number among these.

    What is looked up for one length is mostly looked up for the next, too.
    """
    bits = np.clip(np.frexp(lengths)[1] - 4, 0, _REST_BITS)
    return (lengths >> bits << 8 | bits).astype(np.uint64) * _LENGTH, lengths & (1 << bits) - 1


def _hashes(ranks: NDArray[np.int32]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Shares of sorted words in the hash as the first and as the second of a pair. A repeat is a word of its own."""
    if ranks.ndim == 1:
        times = np.arange(len(ranks)) - np.searchsorted(ranks, ranks)
    else:
        times = np.zeros(ranks.shape, dtype=np.int64)
        for column in range(1, ranks.shape[1]):
            times[:, column] = (times[:, column - 1] + 1) * (ranks[:, column] == ranks[:, column - 1])
    tokens = (ranks + (times << 32)).view(np.uint64)
    return tokens * _FIRST, tokens * _SECOND
