"""The decode loop: one token for every unfinished row, until all rows are finished."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from knowrl_core.engines.base import FinishReason
from knowrl_core.engines.continuation import Continuation, going_on
from knowrl_core.engines.noise import row_keys
from knowrl_core.engines.prefill import Prefilled
from knowrl_core.engines.sampling import Settings, draw
from knowrl_core.engines.text import TextEnd

_LEAVE_AT = 0.75
"""Finished rows leave when at most this share of the rows is still running: leaving copies the cache, staying costs a
row's work at each token."""


@dataclass
class Row:
    """One response in the making."""

    prompt: int
    """Row of its prompt in the prefilled batch."""
    sample: int
    """Index among the request's samples."""
    seed: int
    temperature: float
    top_p: float
    max_new_tokens: int
    end: TextEnd
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None

    def add(self, token: int, logprob: float) -> None:
        """Append a token and see whether it was the last."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if self.end.stopped(self.ids):
            self.finish = "stop"
        elif len(self.ids) >= self.max_new_tokens:
            self.finish = "length"


@torch.inference_mode()
def decode(model: PreTrainedModel, prefilled: Prefilled, rows: Sequence[Row]) -> None:
    """Sample until every row is finished; tokens, log-probabilities and finish reasons are written into the rows.

    Args:
        model: The policy.
        prefilled: The prompts; used up, since the cache is expanded in place.
        rows: Responses, several of which may share a prompt.
    """
    prompts = torch.tensor([row.prompt for row in rows], device=prefilled.logits.device)
    with going_on(model, prefilled, prompts) as context:
        _decode(context, prefilled.logits[prompts], prefilled.lengths[prompts], list(rows))


def _decode(context: Continuation, logits: torch.Tensor, start: torch.Tensor, live: list[Row]) -> None:
    device = logits.device
    positions = start
    # A finished row that stays must not walk out of the context: some models look positions up in a table.
    last = start + torch.tensor([row.max_new_tokens - 1 for row in live], device=device)
    settings = _settings(live, device)
    while True:
        tokens, logprobs = draw(logits, settings, positions - start)
        for row, token, logprob in zip(live, tokens.tolist(), logprobs.tolist(), strict=True):
            if row.finish is None:
                row.add(token, logprob)
        running = [place for place, row in enumerate(live) if row.finish is None]
        if not running:
            return
        if len(running) <= _LEAVE_AT * len(live):
            keep = torch.tensor(running, device=device)
            live = [live[place] for place in running]
            context.keep(keep)
            settings, tokens = settings.select(keep), tokens[keep]
            positions, start, last = positions[keep], start[keep], last[keep]
        logits = context.step(tokens, positions)
        positions = torch.minimum(positions + 1, last)


def _settings(rows: Sequence[Row], device: torch.device) -> Settings:
    def column(values: list[float], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    seeds = torch.tensor([row.seed for row in rows], device=device)
    samples = torch.tensor([row.sample for row in rows], device=device)
    return Settings(
        keys=row_keys(seeds, samples),
        temperature=column([row.temperature for row in rows], torch.float64),
        top_p=column([row.top_p for row in rows], torch.float64),
    )
