"""Shared-prefix packing: each prompt once, its responses after it, several prompts in one sequence.

A pass holds one packed sequence of ``T`` tokens (batch size 1)::

    tokens     p p p p a a a b b | q q q c c d
    position   0 1 2 3 4 5 6 4 5 | 0 1 2 3 4 3
    segment    0 0 0 0 0 0 0 0 0 | 1 1 1 1 1 1      which prompt
    branch     0 0 0 0 1 1 1 2 2 | 0 0 0 1 1 2      0: the prompt; 1, 2, ...: its responses

A token sees the earlier tokens of its own prompt and of its own branch and nothing else, at the positions that they
would have in a sequence of their own. So every response token gets the logits, and every weight the gradient, of the
plain form of one sequence a response. Three things are computed once that the plain form repeats:

* the prompt, whatever the number of its responses;
* responses of the same tokens (constrained verdicts have only two), whose log-probabilities are gathered for each
  verdict: the backward pass adds up their weights;
* the logits of the last prompt token, which predicts the first token of every response.

The last token of a response predicts nothing that is trained on and is left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PromptUnit:
    """A prompt with its responses: what packing never splits."""

    prompt: tuple[int, ...]
    """Prompt tokens."""
    responses: tuple[tuple[int, ...], ...]
    """Response tokens, one entry a verdict; the same response may occur several times."""
    cells: tuple[int, ...]
    """For each verdict, where its first token stands in the flat token arrays of :class:`Experience`."""

    @property
    def packed_length(self) -> int:
        """Tokens that this unit takes in a packed sequence."""
        return len(self.prompt) + sum(len(response) - 1 for response in dict.fromkeys(self.responses))

    @property
    def plain_length(self) -> int:
        """Tokens that it would take with one sequence a response."""
        return sum(len(self.prompt) + len(response) for response in self.responses)


@dataclass(frozen=True, slots=True)
class PackedPass:
    """One forward pass: ``T`` packed tokens, ``R`` of them with logits, ``N`` response tokens trained on."""

    input_ids: Tensor
    """[T] tokens."""
    position_ids: Tensor
    """[T] place of each token in its own prompt + response."""
    segment: Tensor
    """[T] number of the prompt."""
    branch: Tensor
    """[T] 0 in the prompt, else the number of the response, from 1."""
    keep: Tensor
    """[R] places in the packed sequence whose logits are needed, each once."""
    row: Tensor
    """[N] index into ``keep`` of the place that predicts the token."""
    target: Tensor
    """[N] the token."""
    cell: Tensor
    """[N] index into the flat token arrays."""

    def to(self, device: torch.device) -> "PackedPass":
        """The same pass on another device."""
        return PackedPass(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def mask(self) -> Tensor:
        """[1, 1, T, T] bool, query by key: True where attention is allowed.

        Boolean, not additive: it is right at every precision, whereas an additive mask has to have the dtype of the
        queries, which autocast decides.
        """
        causal = torch.ones(len(self.segment), len(self.segment), dtype=torch.bool, device=self.segment.device).tril_()
        same_prompt = self.segment[:, None] == self.segment[None, :]
        visible = (self.branch[None, :] == 0) | (self.branch[:, None] == self.branch[None, :])
        return (causal & same_prompt & visible)[None, None]


def pack(units: Iterable[PromptUnit], token_budget: int) -> list[PackedPass]:
    """Distribute units over passes of at most ``token_budget`` tokens each (first fit, in the given order).

    Args:
        units: Prompts with their responses.
        token_budget: Most packed tokens of a pass. A unit above it gets a pass of its own.

    Returns:
        The passes, in the order in which each was opened. The result depends on the arguments only.
    """
    passes: list[list[PromptUnit]] = []
    room: list[int] = []
    for unit in units:
        length = unit.packed_length
        for i, free in enumerate(room):
            if length <= free:
                passes[i].append(unit)
                room[i] -= length
                break
        else:
            passes.append([unit])
            room.append(token_budget - length)
    return [_lay_out(packed) for packed in passes]


def _lay_out(units: list[PromptUnit]) -> PackedPass:
    columns: dict[str, list[int]] = {f.name: [] for f in fields(PackedPass)}
    rows: dict[int, int] = {}  # place in the packed sequence -> index into keep

    def place(tokens: tuple[int, ...], position: int, segment: int, branch: int) -> int:
        """Append tokens; returns the place of the first one."""
        start = len(columns["input_ids"])
        columns["input_ids"] += tokens
        columns["position_ids"] += range(position, position + len(tokens))
        columns["segment"] += [segment] * len(tokens)
        columns["branch"] += [branch] * len(tokens)
        return start

    for segment, unit in enumerate(units):
        depth = len(unit.prompt)
        last = place(unit.prompt, 0, segment, 0) + depth - 1
        predictors: dict[tuple[int, ...], list[int]] = {}
        for response in dict.fromkeys(unit.responses):
            first = place(response[:-1], depth, segment, len(predictors) + 1)
            predictors[response] = [last, *range(first, first + len(response) - 1)]
        for response, cell in zip(unit.responses, unit.cells, strict=True):
            columns["row"] += [rows.setdefault(spot, len(rows)) for spot in predictors[response]]
            columns["target"] += response
            columns["cell"] += range(cell, cell + len(response))
    columns["keep"] += rows
    return PackedPass(**{name: torch.tensor(values, dtype=torch.long) for name, values in columns.items()})
