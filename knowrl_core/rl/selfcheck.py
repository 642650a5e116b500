"""A model's packed form against its plain one, on a few tokens, before it is trained.

Packing replaces a model's attention. Some models do not let it be replaced, or do not hand the blocks on to it, and few
say so: they would compute something else, without an error.
"""

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from knowrl_core.errors import StageError
from knowrl_core.rl.attention import calls
from knowrl_core.rl.head import TokenOutput
from knowrl_core.rl.packing import PromptUnit, pack
from knowrl_core.rl.tree import PackedPass

TOLERANCE: Final = 1e-2
"""Largest difference of a log-probability, nats. A wrong mask is off by far more, rounding by far less."""

_ROOT: Final = (1, 2, 3, 4, 5, 6, 7, 8)
_SAMPLE: Final = (
    PromptUnit((*_ROOT, 9, 3), ((4, 5), (6,)), (0, 2)),
    PromptUnit((*_ROOT, 2), ((7, 1, 8), (7, 4)), (3, 6)),
    PromptUnit((5, 9), ((2, 2),), (8,)),
)


def sample_pass() -> PackedPass:
    """A pass with a root, units, shared beginnings of responses and a unit by itself."""
    (packed,) = pack(_SAMPLE, 1024)
    return packed


@torch.no_grad()
def plain_logprobs(model: PreTrainedModel) -> Tensor:
    """Log-probabilities of the sample's response tokens from one ordinary sequence each, by cell."""
    found: dict[int, float] = {}
    for unit in _SAMPLE:
        for response, cell in zip(unit.responses, unit.cells, strict=True):
            ids = torch.tensor([unit.prompt + response], device=model.device)
            rows = model(input_ids=ids, use_cache=False).logits[0, len(unit.prompt) - 1 : -1].float().log_softmax(-1)
            found |= {cell + place: rows[place, token].item() for place, token in enumerate(response)}
    return torch.tensor([found[cell] for cell in range(len(found))])


@torch.no_grad()
def require_packed(model: PreTrainedModel, run: Callable[[PackedPass], TokenOutput], expected: Tensor) -> None:
    """Check that packed passes give what plain sequences give.

    Args:
        model: The model, for its name.
        run: Computes a pass with it, in float32.
        expected: From :func:`plain_logprobs`.

    Raises:
        StageError: They differ, or the model does not take the blocks.
    """
    if not expected.isfinite().all():  # broken weights: the loss will not be finite either, and is dealt with
        return
    kind = model.config.model_type
    hint = "Llama, Qwen2, Mistral, Gemma, Phi-3 and most models of their kind work: use one of these."
    calls.clear()
    packed = sample_pass()
    try:
        got = run(packed).logprobs.float().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        if "memory" in str(error):  # it would have run out later, too; whoever called names the lever
            raise
        raise StageError(f"model {kind} cannot compute packed passes: {error}"[:500], hint=hint) from error
    wrong = (got - expected[packed.cell]).abs().max().item() if calls else math.inf
    if not wrong <= TOLERANCE:
        raise StageError(
            f"model {kind} computes packed passes wrongly: log-probabilities differ by {wrong:.3g} nats from those of "
            f"plain sequences, expected at most {TOLERANCE:g}; its attention cannot be replaced",
            hint=hint,
        )
