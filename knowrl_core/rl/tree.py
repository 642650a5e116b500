"""The layout of one packed pass: a flat sequence of tokens, and the blocks that attention is computed in."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

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
    """How attention is computed: ``B`` blocks of ``Q`` queries over ``K`` keys, padded at the end."""

    queries: Tensor
    """[B, Q] places of the queries in the flat sequence."""
    keys: Tensor
    """[B, K] places of the keys: those of the context, then the block's own."""
    mask: Tensor
    """[B, 1, Q, K] bool, True where attention is allowed. Padded queries see the first key, so that no row is empty."""
    places: Tensor
    """[T] where each token of the flat sequence stands in the flattened [B, Q]."""
    unused: Tensor
    """The padded places of the flattened [B, Q]."""
    own: Tensor
    """[T] where each token stands among its own block's keys, in the flattened [B, K]."""
    context: Tensor
    """Places of the flattened [B, K] that hold a context's keys."""


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

        def moved(part: Blocks | Tensor) -> Blocks | Tensor:
            if isinstance(part, Tensor):
                return part.to(device)
            return Blocks(*(getattr(part, f.name).to(device) for f in fields(part)))

        return PackedPass(*(moved(getattr(self, f.name)) for f in fields(self)))  # type: ignore[arg-type]

    def visible(self) -> Tensor:
        """[T, T] bool, query by key: True where attention is allowed. For tests and for models that need one mask."""
        size = len(self.input_ids)
        seen = torch.zeros(size, size, dtype=torch.bool)
        flat = self.blocks.places
        width = self.blocks.queries.shape[1]
        for token in range(size):
            block, query = divmod(int(flat[token]), width)
            seen[token, self.blocks.keys[block][self.blocks.mask[block, 0, query]]] = True
        return seen


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


def _blocks(parts: Sequence[tuple[tuple[int, int], tuple[int, int], Bools]]) -> Blocks:
    width = max(end - start for _, (start, end), _ in parts)
    depth = max(context[1] - context[0] + end - start for context, (start, end), _ in parts)
    queries = np.zeros((len(parts), width), dtype=np.int64)
    keys = np.zeros((len(parts), depth), dtype=np.int64)
    mask = np.zeros((len(parts), 1, width, depth), dtype=np.bool_)
    places: list[NDArray[np.int64]] = []
    own: list[NDArray[np.int64]] = []
    used: list[NDArray[np.int64]] = []
    for number, (context, (start, end), seen) in enumerate(parts):
        before, size = context[1] - context[0], end - start
        queries[number, :size] = np.arange(start, end)
        keys[number, :before] = np.arange(*context)
        keys[number, before : before + size] = np.arange(start, end)
        mask[number, 0, :size, :before] = True
        mask[number, 0, :size, before : before + size] = seen
        mask[number, 0, size:, 0] = True
        places.append(number * width + np.arange(size, dtype=np.int64))
        own.append(number * depth + before + np.arange(size, dtype=np.int64))
        used.append(number * depth + np.arange(before, dtype=np.int64))
    taken = np.concatenate(places)
    unused = np.setdiff1d(np.arange(len(parts) * width), taken)
    columns = (queries, keys, mask, taken, unused, np.concatenate(own), np.concatenate(used))
    return Blocks(*map(torch.from_numpy, columns))
