"""From hidden states to log-probabilities and entropies, without a second copy of the logits.

The plain way keeps logits, their softmax and the gradient of both, each [R, vocabulary] in float32: more than all
layers of a small model together. Here one such buffer is kept, and turned into the gradient in place; the forward pass
needs a second one for a moment.

The forward pass is in float32 even where the model runs in bf16: with 8 bits of mantissa a logit of 20 is off by up to
0.06, and so would be every log-probability and ratio. The two products of the backward pass have no such need and use
the precision of the model.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """What the model says of the ``N`` response tokens of a pass; float32 (float64 for a float64 model)."""

    logprobs: Tensor
    """[N] natural log-probabilities."""
    entropy: Tensor
    """[N] entropy of the distribution that each token was drawn from, in nats."""


class _HeadOutputs(torch.autograd.Function):
    """``(hidden [R, D], weight [V, D], bias [V] or None, row [N], target [N]) -> logprobs [N], entropy [R]``.

    With ``z = hidden W^T + b``, ``p = softmax(z)`` and upstream gradients g of log-probabilities and h of entropies,

        dz[r] = sum over n in r of g[n] (onehot(target[n]) - p[r])  -  h[r] p[r] (log p[r] + H[r])
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        row: Tensor,
        target: Tensor,
        backward_dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        logits = nn.functional.linear(hidden.to(weight.dtype), weight, bias)
        normaliser = torch.logsumexp(logits, dim=-1)
        logprobs = logits[row, target] - normaliser[row]
        logits.sub_(normaliser[:, None])  # log p
        probabilities = torch.exp(logits)
        entropy = -torch.linalg.vecdot(probabilities, logits)
        # The buffer goes on as p; log p is found again where it is needed. With entropy gradients it costs one log.
        ctx.save_for_backward(hidden, weight, probabilities, entropy, row, target)
        ctx.has_bias = bias is not None
        ctx.backward_dtype = backward_dtype
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        to_logprobs, to_entropy = upstream
        hidden, weight, probabilities, entropy, row, target = ctx.saved_tensors
        factor = torch.zeros_like(entropy)
        if to_logprobs is not None:
            factor.index_add_(0, row, to_logprobs)
        if to_entropy is None:
            grad = probabilities.mul_(-factor[:, None])
        else:
            tiny = torch.finfo(probabilities.dtype).tiny
            pull = torch.log(probabilities.clamp_min(tiny)).add_(entropy[:, None]).mul_(to_entropy[:, None])
            grad = probabilities.mul_(pull.add_(factor[:, None]).neg_())
        if to_logprobs is not None:
            grad.index_put_((row, target), to_logprobs, accumulate=True)
        grad_bias = grad.sum(0) if ctx.has_bias else None
        narrow = grad.to(ctx.backward_dtype)
        grad_hidden = (narrow @ weight.to(ctx.backward_dtype)).to(hidden.dtype) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (narrow.T @ hidden.to(ctx.backward_dtype)).to(weight.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def head_outputs(
    hidden: Tensor, head: nn.Linear, row: Tensor, target: Tensor, *, backward_dtype: torch.dtype | None = None
) -> TokenOutput:
    """Log-probabilities and entropies of tokens from the last hidden states.

    Args:
        hidden: [R, D] states that predict the tokens.
        head: The LM head, in float32 or float64.
        row: [N] index into ``hidden`` for each token.
        target: [N] the tokens.
        backward_dtype: Arithmetic of the backward products; that of the head's weight if None.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        logprobs, entropy = cast(
            "tuple[Tensor, Tensor]",
            _HeadOutputs.apply(  # type: ignore[no-untyped-call]
                hidden, head.weight, head.bias, row, target, backward_dtype or head.weight.dtype
            ),
        )
    return TokenOutput(logprobs, entropy.index_select(0, row))


def logit_outputs(logits: Tensor, row: Tensor, target: Tensor) -> TokenOutput:
    """The same from logits [R, V], for models that do more to them than the head's product."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    normaliser = torch.logsumexp(logits, dim=-1)
    entropy = normaliser - torch.linalg.vecdot(torch.softmax(logits, dim=-1), logits)
    return TokenOutput(logits[row, target] - normaliser[row], entropy.index_select(0, row))


@torch.no_grad()
def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether a model's logits are the product of its last hidden state with a linear head, and nothing more.

    Some models scale or cap their logits. No flag says so for all of them, so this asks the model itself, with a few
    tokens.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if type(head) is not nn.Linear:
        return False
    tokens = torch.arange(4, device=model.device)[None] % head.weight.shape[0]
    whole = model(input_ids=tokens, use_cache=False).logits
    body = model.base_model(input_ids=tokens, use_cache=False)
    return bool(torch.equal(whole, head(body[0])))
