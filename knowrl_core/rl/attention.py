"""Attention over a packed pass, as an attention function that any transformers model can be given.

Everything else in a transformer works on one token at a time, so a packed pass runs through it as one flat sequence
without padding. Only attention looks at other tokens. It gathers each block's queries and keys and computes them with
PyTorch's fused kernel, so the work grows with the length of a prompt, not with that of the pass.
"""

from collections import deque
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from knowrl_core.errors import StageError
from knowrl_core.rl.tree import Blocks

NAME: Final = "knowrl_packed"
"""Name under which transformers knows the function."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_blocks: Blocks | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed pass.

    Args:
        module: The attention layer.
        query: [1, H, T, D].
        key: [1, H', T, D] with H a multiple of H'.
        value: The same.
        attention_mask: Not used with blocks.
        packed_blocks: From :class:`~knowrl_core.rl.tree.PackedPass`; None for ordinary causal attention.
        scaling: Factor of the scores.
        options: What the model's layers pass besides.

    Returns:
        [1, T, H, D] and no weights.

    Raises:
        StageError: The model wants something of attention that this function does not do.
    """
    if options.get("softcap") is not None or options.get("s_aux") is not None:
        raise StageError(
            f"{type(module).__name__} caps its attention scores or has attention sinks, expected plain softmax "
            "attention: shared-prefix packing does not know these",
            hint="Use a model without them.",
        )
    if packed_blocks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    calls.append(type(module).__name__)
    heads, tokens, width = query.shape[1:]
    shared, depth = key.shape[1], value.shape[-1]
    groups = heads // shared
    # The query heads that share a key head become further queries of it, so keys need no copies for them.
    queries = _queries(query[0].view(shared, groups, tokens, width), packed_blocks)
    keys, values = _keys(key[0], packed_blocks), _keys(value[0], packed_blocks)
    outputs = []
    first_query = first_key = 0
    for mask in packed_blocks.masks:
        n, _, n_queries, n_keys = mask.shape
        q = queries.narrow(2, first_query, n * n_queries).view(shared, groups, n, n_queries, width)
        q = q.permute(2, 0, 1, 3, 4).reshape(n, shared, -1, width)
        k = keys.narrow(1, first_key, n * n_keys).view(shared, n, n_keys, width).transpose(0, 1)
        v = values.narrow(1, first_key, n * n_keys).view(shared, n, n_keys, depth).transpose(0, 1)
        many = mask.repeat(1, 1, groups, 1)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=many, scale=scaling)
        out = out.view(n, shared, groups, n_queries, depth).permute(0, 3, 1, 2, 4)
        outputs.append(out.reshape(n * n_queries, heads, depth))
        first_query, first_key = first_query + n * n_queries, first_key + n * n_keys
    return _flat(torch.cat(outputs) if len(outputs) > 1 else outputs[0], packed_blocks)[None], None


calls: deque[str] = deque(maxlen=1000)
"""Layers that computed a packed pass lately: how a model is caught that does not pass the blocks on."""


class _Gather(torch.autograd.Function):
    """``index_select`` whose gradient is mostly a gather, too.

    In general the gradient of a gather is a scatter, which is slow. Here it is known where each row went: to one place,
    and, for a context, to some more.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,
        rows: Tensor,
        dim: int,
        index: Tensor,
        back: Tensor,
        unused: Tensor | None,
        more: Tensor | None,
    ) -> Tensor:
        """Rows at ``index``; ``back`` holds one place of each row of the input in the result.

        ``unused`` rows of the input went nowhere. ``more`` are further places that hold rows of the input.
        """
        ctx.dim, ctx.tensors = dim, (index, back, unused, more)
        return rows.index_select(dim, index)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        index, back, unused, more = ctx.tensors
        gradient = upstream[0].index_select(ctx.dim, back)
        if unused is not None and len(unused):
            gradient.index_fill_(ctx.dim, unused, 0.0)
        if more is not None and len(more):
            gradient.index_add_(ctx.dim, index.index_select(0, more), upstream[0].index_select(ctx.dim, more))
        return gradient, None, None, None, None, None


def _queries(rows: Tensor, blocks: Blocks) -> Tensor:
    """[.., .., T, D] to [.., .., queries, D]. Padded queries get no gradient, since their output is dropped."""
    return _gather(rows, 2, blocks.queries, blocks.places)


def _keys(rows: Tensor, blocks: Blocks) -> Tensor:
    """[.., T, D] to [.., keys, D]. Padded keys get no gradient, since they are masked."""
    return _gather(rows, 1, blocks.keys, blocks.own, more=blocks.context)


def _flat(rows: Tensor, blocks: Blocks) -> Tensor:
    """[queries, .., D] to [T, .., D]."""
    return _gather(rows, 0, blocks.places, blocks.queries, unused=blocks.unused)


def _gather(
    rows: Tensor, dim: int, index: Tensor, back: Tensor, *, unused: Tensor | None = None, more: Tensor | None = None
) -> Tensor:
    gathered: Tensor = _Gather.apply(rows, dim, index, back, unused, more)  # type: ignore[no-untyped-call]
    return gathered


def use_packed_attention(model: PreTrainedModel) -> None:
    """Let a model use :func:`packed_attention` from now on; without blocks it computes ordinary causal attention.

    Not for the time of a forward pass only: with gradient checkpointing, layers run again during the backward pass.
    """
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)
