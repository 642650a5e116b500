"""The layout of one packed pass: a flat sequence of tokens, and the blocks that attention is computed in."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """Tokens that follow one another, and a trie of responses behind them."""

    context: "Unit | None"
    """What the tokens follow; its own context is None."""
    tokens: tuple[int, ...]
    """The (rest of the) prompt, at least one token."""
    responses: tuple[tuple[int, ...], ...]
    """Responses to it."""
    cells: tuple[int, ...]
    """For each response, where its first token stands in the flat token arrays."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How attention is computed: blocks of queries over keys, in classes of like size.

    A class has ``B`` blocks of ``Q`` queries over ``K`` keys, padded at the end. Sizes within a class differ by less
    than a factor of two, so the padding is bounded whatever the mix of lengths. The flat arrays hold the classes one
    after the other.
    """

    queries: Tensor
    """[sum of B Q] places of the queries in the flat sequence."""
    keys: Tensor
    """[sum of B K] places of the keys: of each block those of the context, then its own."""
    masks: tuple[Tensor, ...]
    """For each class [B, 1, Q, K] bool, True where attention is allowed. Padded queries see the first key, so that no
    row is empty."""
    places: Tensor
    """[T] where each token of the flat sequence stands among the queries."""
    unused: Tensor
    """The padded places among the queries."""
    own: Tensor
    """[T] where each token stands among its own block's keys."""
    context: Tensor
    """Places among the keys that hold a context's keys."""


@dataclass(frozen=True, slots=True)
class PackedPass:
    """One forward pass: ``T`` packed tokens, ``R`` of them with logits, ``N`` response tokens trained on."""

    input_ids: Tensor
    """[T] tokens."""
    position_ids: Tensor
    """[T] place of each token in its own prompt + response."""
    keep: Tensor
    """[R] places in the packed sequence whose logits are needed, each once, ascending."""
    row: Tensor
    """[N] index into ``keep`` of the place that predicts the token."""
    target: Tensor
    """[N] the token."""
    cell: Tensor
    """[N] index into the flat token arrays."""
    blocks: Blocks
    """How attention is computed."""

    def to(self, device: torch.device | str) -> "PackedPass":
        """The same pass on another device."""

        def moved(part: Any) -> Any:
            if isinstance(part, Tensor):
                return part.to(device)
            if isinstance(part, tuple):
                return tuple(map(moved, part))
            return Blocks(*(moved(getattr(part, f.name)) for f in fields(part)))

        return PackedPass(*(moved(getattr(self, f.name)) for f in fields(self)))


class _Columns:
    """The columns of a pass while it grows."""

    def __init__(self) -> None:
        self.input_ids: list[int] = []
        self.position_ids: list[int] = []
        self.row_place: list[int] = []
        self.target: list[int] = []
        self.cell: list[int] = []


def lay_out(units: Sequence[Unit]) -> PackedPass:
    """Lay units out one after the other; each context comes before what follows it.

    Args:
        units: Contexts and units of a pass.
    """
    columns = _Columns()
    spans: dict[int, tuple[int, int]] = {}
    blocks: list[tuple[tuple[int, int], tuple[int, int], Bools]] = []
    for unit in units:
        context = (0, 0) if unit.context is None else spans[id(unit.context)]
        start = len(columns.input_ids)
        own = _place(unit, columns, context[1] - context[0])
        spans[id(unit)] = (start, len(columns.input_ids))
        blocks.append((context, spans[id(unit)], own))
    places, rows = np.unique(np.array(columns.row_place, dtype=np.int64), return_inverse=True)

    def column(values: Sequence[int] | NDArray[np.int64]) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int64))

    return PackedPass(
        input_ids=column(columns.input_ids),
        position_ids=column(columns.position_ids),
        keep=column(places),
        row=column(rows.reshape(-1)),
        target=column(columns.target),
        cell=column(columns.cell),
        blocks=_blocks(blocks),
    )


def _place(unit: Unit, columns: _Columns, depth: int) -> Bools:
    """Append a unit's tokens; returns which of them each one sees, [own, own]."""
    start, length = len(columns.input_ids), len(unit.tokens)
    columns.input_ids += unit.tokens
    columns.position_ids += range(depth, depth + length)
    parents: list[int] = []  # of the response tokens, counted from the unit's start
    known: dict[tuple[int, int], int] = {}  # (place, next token) -> place of that token
    for response, cell in zip(unit.responses, unit.cells, strict=True):
        place = length - 1
        for offset, token in enumerate(response):
            columns.row_place.append(start + place)
            columns.target.append(token)
            columns.cell.append(cell + offset)
            if offset == len(response) - 1:
                break  # the last token predicts nothing
            step = (place, token)
            if step not in known:
                known[step] = length + len(parents)
                parents.append(place)
                columns.input_ids.append(token)
                columns.position_ids.append(depth + length + offset)
            place = known[step]
    size = length + len(parents)
    seen = np.zeros((size, size), dtype=np.bool_)
    seen[:length, :length] = np.tri(length, dtype=np.bool_)
    for child, parent in enumerate(parents, start=length):
        seen[child] = seen[parent]
        seen[child, child] = True
    return seen


Part = tuple[tuple[int, int], tuple[int, int], Bools]
"""Span of the context, span of the block's own tokens, and which of these each of them sees."""


def _blocks(parts: Sequence[Part]) -> Blocks:
    classes: dict[tuple[int, int], list[Part]] = {}
    for part in parts:
        context, (start, end), _ = part
        own = end - start
        classes.setdefault((own.bit_length(), (context[1] - context[0] + own).bit_length()), []).append(part)
    columns = [_class(classes[size]) for size in sorted(classes)]
    queries = np.concatenate([column.queries.ravel() for column in columns])
    keys = np.concatenate([column.keys.ravel() for column in columns])
    used = np.concatenate([column.used.ravel() for column in columns])
    kind = np.concatenate([column.kind.ravel() for column in columns])
    tokens = max(end for _, (_, end), _ in parts)
    places, own_keys = np.zeros(tokens, dtype=np.int64), np.zeros(tokens, dtype=np.int64)
    places[queries[used]] = np.flatnonzero(used)
    own_keys[keys[kind == _OWN]] = np.flatnonzero(kind == _OWN)
    unused, context_keys = np.flatnonzero(~used), np.flatnonzero(kind == _CONTEXT)
    masks = tuple(torch.from_numpy(column.mask) for column in columns)
    flat = [torch.from_numpy(values) for values in (queries, keys, places, unused, own_keys, context_keys)]
    return Blocks(flat[0], flat[1], masks, *flat[2:])


_PADDING, _CONTEXT, _OWN = 0, 1, 2


class _Class:
    """The padded arrays of one class."""

    def __init__(self, blocks: int, width: int, depth: int) -> None:
        self.queries = np.zeros((blocks, width), dtype=np.int64)
        self.used = np.zeros((blocks, width), dtype=np.bool_)
        self.keys = np.zeros((blocks, depth), dtype=np.int64)
        self.kind = np.full((blocks, depth), _PADDING, dtype=np.int8)
        self.mask = np.zeros((blocks, 1, width, depth), dtype=np.bool_)


def _class(parts: Sequence[Part]) -> _Class:
    width = max(end - start for _, (start, end), _ in parts)
    depth = max(context[1] - context[0] + end - start for context, (start, end), _ in parts)
    made = _Class(len(parts), width, depth)
    for number, (context, (start, end), seen) in enumerate(parts):
        before, size = context[1] - context[0], end - start
        made.queries[number, :size] = np.arange(start, end)
        made.used[number, :size] = True
        made.keys[number, :before] = np.arange(*context)
        made.kind[number, :before] = _CONTEXT
        made.keys[number, before : before + size] = np.arange(start, end)
        made.kind[number, before : before + size] = _OWN
        made.mask[number, 0, :size, :before] = True
        made.mask[number, 0, :size, before : before + size] = seen
        made.mask[number, 0, size:, 0] = True
    return made
