"""One packed forward pass through a Hugging Face causal language model."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from knowrl_core.errors import StageError
from knowrl_core.rl.attention import use_packed_attention
from knowrl_core.rl.head import TokenOutput, has_plain_head, head_outputs, logit_outputs
from knowrl_core.rl.selfcheck import plain_logprobs, require_packed
from knowrl_core.rl.tree import PackedPass

Precision = Literal["fp32", "bf16"]

_CHECKED = "_knowrl_packed_form_is_right"
"""Set on a model once :mod:`~knowrl_core.rl.selfcheck` has passed."""


class PackedModel:
    """A model that computes packed passes.

    Args:
        model: A causal language model of transformers, float32, whose attention can be replaced.
        precision: Arithmetic of the layers (bf16 through autocast).
        whole: Whether the weights are here outside of the model's own modules, too (not so under ZeRO-3); without it
            all logits of a pass are made.
        device: Where to compute, if it is not where the weights are.

    Raises:
        StageError: The model's packed form is not its plain one (not checked under ZeRO-3).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        precision: Precision,
        *,
        whole: bool = True,
        device: torch.device | None = None,
    ) -> None:
        self.model = model
        self.precision = precision
        self._device = device
        self._plain_head = whole and has_plain_head(model)
        known = getattr(model, _CHECKED, False) or not whole or model.device.type == "meta"
        expected = None if known else plain_logprobs(model)
        use_packed_attention(model)
        if expected is not None:
            self.precision = "fp32"
            require_packed(model, self, expected)
            self.precision = precision
            setattr(model, _CHECKED, True)

    def __call__(self, packed_pass: PackedPass) -> TokenOutput:
        """Run one pass, which may be on any device; the results are on the model's."""
        part = packed_pass.to(self.device)
        inputs = {
            "input_ids": part.input_ids[None],
            "position_ids": part.position_ids[None],
            "use_cache": False,
            "packed_blocks": part.blocks,
        }
        if self._plain_head:
            with self._autocast():
                states: Tensor = self.model.base_model(**inputs)[0][0]
            head = cast(nn.Linear, self.model.get_output_embeddings())  # type: ignore[no-untyped-call]
            narrow = torch.bfloat16 if self.precision == "bf16" else None
            kept = states.index_select(0, part.keep)
            return head_outputs(kept, head, part.row, part.target, backward_dtype=narrow)
        with self._autocast(), full_precision_head(self.model, self.precision):
            logits: Tensor = self.model(**inputs, logits_to_keep=part.keep).logits[0]
        return logit_outputs(logits, part.row, part.target)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device or self.model.device

    def _autocast(self) -> Any:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


@contextmanager
def full_precision_head(model: PreTrainedModel, precision: Precision) -> Iterator[None]:
    """Let the LM head compute in float32 under autocast (see ``head.py`` for the reason)."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if precision == "fp32" or type(head) is not nn.Linear:
        yield
        return

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), head.weight, head.bias)

    head.forward = forward  # type: ignore[method-assign, assignment] # on the instance only: shadows the class's method until it is deleted
    try:
        yield
    finally:
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
