"""One packed forward pass through any Hugging Face causal language model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from knowrl_core.errors import StageError
from knowrl_core.rl.packing import PackedPass

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """What the model says of the ``N`` response tokens of a pass; float32 (float64 for a float64 model)."""

    logprobs: Tensor
    """[N] natural log-probabilities, with gradient where it is enabled."""
    entropy: Tensor
    """[N] entropy of the distribution that each token was drawn from, in nats; never with gradient."""


def token_outputs(model: PreTrainedModel, packed: PackedPass, *, precision: Precision) -> TokenOutput:
    """Run one pass. ``packed`` may be on any device; the results are on the model's."""
    packed = packed.to(model.device)
    with arithmetic(model, precision):
        logits: Tensor = model(
            input_ids=packed.input_ids[None],
            attention_mask=packed.mask(),
            position_ids=packed.position_ids[None],
            logits_to_keep=packed.keep,
            use_cache=False,
        ).logits[0]  # [R, vocabulary]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    normaliser = torch.logsumexp(logits, dim=-1)  # [R]
    logprobs = logits[packed.row, packed.target] - normaliser[packed.row]
    with torch.no_grad():
        probabilities = torch.exp(logits - normaliser[:, None])
        entropy = normaliser - torch.linalg.vecdot(probabilities, logits)  # [R]
    return TokenOutput(logprobs, entropy[packed.row])


@contextmanager
def arithmetic(model: PreTrainedModel, precision: Precision) -> Iterator[None]:
    """Autocast to bf16 if asked for, except for the LM head.

    With 8 bits of mantissa a logit of 20 is off by up to 0.06, and so would be every log-probability and ratio. The
    head runs on few positions here, so float32 costs next to nothing there.
    """
    if precision == "fp32":
        yield
        return
    device = model.device.type
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]

    def full_precision(hidden: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            return nn.functional.linear(hidden.float(), head.weight, head.bias)

    patched = type(head) is nn.Linear
    if patched:
        head.forward = full_precision  # on the instance only: shadows the class's method until it is deleted
    try:
        with torch.autocast(device, dtype=torch.bfloat16):
            yield
    finally:
        if patched:
            del head.forward


def check_model_fits(model: PreTrainedModel, *, longest: int, largest_token: int) -> None:
    """Refuse what the packed form cannot compute rightly.

    Args:
        model: The model.
        longest: Longest prompt with response, in tokens.
        largest_token: Largest token id of the rollouts.

    Raises:
        StageError: The sequences or tokens do not fit the model, or it has layers without full attention.
    """
    config = model.config.get_text_config()
    rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    if largest_token >= rows:
        raise StageError(
            f"the rollouts hold token id {largest_token}, expected less than the model's vocabulary of {rows}",
            hint="Were they sampled with another model or tokenizer? Redo classify with this one.",
        )
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise StageError(
            f"the longest prompt with response has {longest} tokens, expected at most the model's {limit} positions",
            hint="Lower rl.max_prompt_tokens or verdict.sampling.max_new_tokens.",
        )
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or (["sliding_attention"] if window else ["full_attention"]))
    slides = "sliding_attention" in kinds and window is not None and longest > window
    if slides or kinds - {"full_attention", "sliding_attention"}:
        raise StageError(
            f"model {config.model_type} has layers of kind {', '.join(sorted(kinds))} (window: {window}), expected "
            f"full attention over the longest sequence of {longest} tokens: shared-prefix packing replaces the mask",
            hint="Use a model with full attention, or lower rl.max_prompt_tokens below the window.",
        )
