"""Runs prompts through the model once, so that their samples and choices can share the work."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from knowrl_core.engines.head import fp32_head
from knowrl_core.engines.kv_cache import new_cache, repeated
from knowrl_core.prefixes import Family, families

_SHORTEST_PREFIX = 16
"""A common prefix with fewer tokens is not worth a pass of its own."""


@dataclass(frozen=True)
class Prefix:
    """Tokens that all prompts begin with, computed once."""

    ids: tuple[int, ...]
    cache: Cache | None


@dataclass
class Prefilled:
    """Prompts in the cache, one row each, with the model's opinion on the next token."""

    cache: Cache
    logits: torch.Tensor
    """fp32, shape [rows, vocabulary]."""
    mask: torch.Tensor
    """Which cached tokens are real, bool, shape [rows, cached tokens]."""
    lengths: torch.Tensor
    """Tokens of each prompt, int64, shape [rows]: the position of the next token."""


def prefix_families(prompts: Sequence[Sequence[int]]) -> list[Family]:
    """Part prompts into families with a long common beginning each; those without one are a family together."""
    found = families(prompts, shortest=_SHORTEST_PREFIX)
    alone = [place for family in found if len(family.members) == 1 for place in family.members]
    shared = [family for family in found if len(family.members) > 1]
    return [*shared, Family(0, tuple(alone))] if alone else shared


@torch.inference_mode()
def compute_prefix(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Prefix:
    """The longest common beginning of all prompts (never a whole prompt) and its cache; empty if it is too short."""
    if len(prompts) < 2 or getattr(model.config, "sliding_window", None):
        return Prefix((), None)  # a sliding window counts cached tokens, padding between prefix and rest included
    ordered = sorted(tuple(prompt) for prompt in prompts)
    first, last = ordered[0], ordered[-1]  # whatever the smallest and the largest share, all share
    limit = min(len(prompt) for prompt in prompts) - 1  # the last token of each prompt must give logits
    common = 0
    while common < limit and first[common] == last[common]:
        common += 1
    if common < _SHORTEST_PREFIX:
        return Prefix((), None)
    ids = first[:common]
    cache = new_cache()
    model(input_ids=_row(ids, model), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Prefix(ids, cache)


@torch.inference_mode()
def prefill(model: PreTrainedModel, prompts: Sequence[Sequence[int]], prefix: Prefix) -> Prefilled:
    """One forward pass over what follows the prefix, padded on the left.

    Args:
        model: The policy.
        prompts: Token ids, each beginning with the prefix and longer than it.
        prefix: From :func:`compute_prefix`.

    Returns:
        Cache, next-token logits, mask and lengths, in the order of the prompts.
    """
    device = model.device
    shared = len(prefix.ids)
    rests = [list(prompt[shared:]) for prompt in prompts]
    width = max(len(rest) for rest in rests)
    ids = torch.zeros((len(rests), width), dtype=torch.long)
    mask = torch.ones((len(rests), shared + width), dtype=torch.bool)
    for row, rest in enumerate(rests):
        ids[row, width - len(rest) :] = torch.tensor(rest)
        mask[row, shared : shared + width - len(rest)] = False
    # Padding repeats the position before it; it is masked, so only its being valid matters.
    positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, shared:]
    cache = new_cache() if prefix.cache is None else repeated(prefix.cache, len(rests))
    mask = mask.to(device)
    with fp32_head(model):
        output = model(
            input_ids=ids.to(device),
            attention_mask=mask,
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    return Prefilled(cache, output.logits[:, -1].float(), mask, lengths)


def _row(ids: Sequence[int], model: PreTrainedModel) -> torch.Tensor:
    return torch.tensor([list(ids)], device=model.device)
