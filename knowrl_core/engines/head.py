"""Full-precision logits from a model in half precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel

_CHUNK = 16_384
"""Rows of the vocabulary that are widened at a time; bounds the memory of the copy."""


@contextmanager
def fp32_head(model: PreTrainedModel) -> Iterator[None]:
    """Let the language-model head compute in fp32 inside the block.

    A bf16 logit between 8 and 16 moves in steps of 1/16: label probabilities would come in coarse steps and many tasks
    would tie. The hidden state is finer than that. Whatever the model does after its head (scaling, capping) still
    happens. Models in fp32 are left alone.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    plain = isinstance(head, torch.nn.Linear)
    if not plain or head.weight.dtype == torch.float32:
        yield
        return

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        wide = hidden.float()
        logits = torch.cat([linear(wide, part.float()) for part in head.weight.split(_CHUNK)], dim=-1)
        return logits if head.bias is None else logits + head.bias.float()

    head.forward = forward
    try:
        yield
    finally:
        del head.forward
