"""Exact log-probabilities of a few strings after each prompt."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from knowrl_core.engines.encode import Choice
from knowrl_core.engines.head import fp32_head
from knowrl_core.engines.prefill import Prefilled


@torch.inference_mode()
def score_choices(
    model: PreTrainedModel, prefilled: Prefilled, choices: Sequence[Sequence[Choice]]
) -> list[list[tuple[float, ...]]]:
    """Score each prompt's choices over its cache.

    First tokens need no further work: the prefill has their logits. Only choices of several tokens are run, all in one
    pass.

    Args:
        model: The policy.
        prefilled: The prompts; used up, since the cache is expanded in place.
        choices: Token ids of the choices of each prompt, none empty.

    Returns:
        Natural log-probability of each token of each choice of each prompt (fp32 arithmetic over the whole vocabulary).
    """
    first = torch.log_softmax(prefilled.logits, dim=-1)
    scores = [[[float(first[row, choice[0]])] for choice in group] for row, group in enumerate(choices)]
    longer = [
        (row, place) for row, group in enumerate(choices) for place, choice in enumerate(group) if len(choice) > 1
    ]
    if longer:
        tokens = [choices[row][place] for row, place in longer]
        later = _later_tokens(model, prefilled, [row for row, _ in longer], tokens)
        for (row, place), values in zip(longer, later, strict=True):
            scores[row][place] += values
    return [[tuple(values) for values in group] for group in scores]


def _later_tokens(
    model: PreTrainedModel, prefilled: Prefilled, rows: list[int], tokens: list[Choice]
) -> list[list[float]]:
    """Log-probabilities of all tokens but the first, choices padded on the right."""
    device = prefilled.logits.device
    index = torch.tensor(rows, device=device)
    width = max(len(choice) for choice in tokens) - 1
    ids = torch.zeros((len(tokens), width), dtype=torch.long)
    targets = torch.zeros((len(tokens), width), dtype=torch.long)
    for row, choice in enumerate(tokens):
        ids[row, : len(choice) - 1] = torch.tensor(choice[:-1])
        targets[row, : len(choice) - 1] = torch.tensor(choice[1:])
    prefilled.cache.batch_select_indices(index)
    mask = prefilled.mask[index]
    # Padding on the right needs no mask: no real token looks ahead.
    mask = torch.cat([mask, mask.new_ones((len(tokens), width))], dim=1)
    positions = prefilled.lengths[index][:, None] + torch.arange(width, device=device)
    with fp32_head(model):
        output = model(
            input_ids=ids.to(device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=prefilled.cache,
            use_cache=True,
        )
    logprobs = torch.log_softmax(output.logits.float(), dim=-1)
    found = logprobs.gather(-1, targets.to(device)[:, :, None]).squeeze(-1).tolist()
    return [values[: len(choice) - 1] for values, choice in zip(found, tokens, strict=True)]
