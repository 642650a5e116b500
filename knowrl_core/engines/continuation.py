"""Going on from prompts in the cache: one more token for each response.

Two ways with the same result. The expanded cache holds each prompt once a response, which every model and device can
compute. The shared cache holds it once, whatever the number of its responses, and reads it once for all of them: with
k = 8 responses to prompts of 150 tokens, that is a fifth of the memory and of what attention reads.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from knowrl_core.engines.kv_cache import GrowingLayer
from knowrl_core.engines.prefill import Prefilled, Prefix, prefill

NAME: Final = "knowrl_shared_prompts"
"""Name under which transformers knows the attention over shared prompts."""
_CHECKED: Final = "_knowrl_shares_prompts"
_TOLERANCE: Final = {True: 1e-2, False: 0.5}
"""Largest difference of a log-probability, nats, by whether the model is in float32 (or wider). A wrong mask is off by
more, rounding by less."""


class Continuation(Protocol):
    """Responses under way, in rows."""

    def keep(self, rows: Tensor) -> None:
        """Keep some rows, by index."""
        ...

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Append a token to each row; next-token logits, fp32, shape [rows, vocabulary].

        Args:
            tokens: Shape [rows].
            positions: Their positions, shape [rows].
        """
        ...


class Expanded:
    """Each row has its prompt's keys and values.

    Args:
        model: The policy.
        prefilled: The prompts; used up, since the cache is expanded in place.
        prompts: Prompt of each row, shape [rows].
    """

    def __init__(self, model: PreTrainedModel, prefilled: Prefilled, prompts: Tensor) -> None:
        self._model, self._cache = model, prefilled.cache
        self._cache.batch_select_indices(prompts)
        self._mask = prefilled.mask[prompts]

    def keep(self, rows: Tensor) -> None:
        """Keep some rows, by index."""
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Append a token to each row."""
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(tokens), 1))], dim=1)
        output = self._model(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=positions[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits


class Groups:
    """Which rows continue which prompt, as a table of prompts and slots; slots of prompts with fewer rows are spare."""

    def __init__(self, prompts: Tensor, bias: Tensor) -> None:
        self.prompts = prompts
        self.bias = bias
        """0 at a prompt's tokens and -inf at padding, shape [prompts, 1, 1, tokens]."""
        counts = torch.bincount(prompts, minlength=len(bias))
        self.slots = int(counts.max())
        order = torch.argsort(prompts, stable=True)
        first = counts.cumsum(0) - counts
        slot = torch.empty_like(prompts)
        slot[order] = torch.arange(len(prompts), device=prompts.device) - first[prompts[order]]
        self.place = prompts * self.slots + slot
        """Each row's cell in the table, shape [rows]."""
        self.row = torch.zeros(len(bias) * self.slots, dtype=torch.long, device=prompts.device)
        """Each cell's row, any for spare ones, shape [prompts * slots]."""
        self.row[self.place] = torch.arange(len(prompts), device=prompts.device)

    def gather(self, rows: Tensor) -> Tensor:
        """[rows, H, G, N] to [prompts, H, slots * G, N]."""
        _, heads, group, width = rows.shape
        cells = rows[self.row].view(-1, self.slots, heads, group, width).transpose(1, 2)
        return cells.reshape(-1, heads, self.slots * group, width)

    def scatter(self, cells: Tensor, group: int) -> Tensor:
        """[prompts, H, slots * G, N] to [rows, H, G, N]."""
        prompts, heads, _, width = cells.shape
        rows = cells.view(prompts, heads, self.slots, group, width).transpose(1, 2)
        return rows.reshape(prompts * self.slots, heads, group, width)[self.place]


class Shared:
    """Rows share their prompt's keys and values; only what they add is their own.

    Attention is computed in float32 whatever the model's type: scores in bf16 would be off by several hundredths.

    Args:
        model: The policy, for which :func:`can_share` holds, with the attention named ``NAME``.
        prefilled: The prompts; used up.
        prompts: Prompt of each row, shape [rows].
    """

    def __init__(self, model: PreTrainedModel, prefilled: Prefilled, prompts: Tensor) -> None:
        self._model = model
        layers: Any = prefilled.cache.layers  # typed as those of all kinds of cache
        self._prompts: list[tuple[Tensor, Tensor]] = [(held.keys.float(), held.values.float()) for held in layers]
        bias = torch.zeros(prefilled.mask.shape, device=prompts.device).masked_fill_(~prefilled.mask, -torch.inf)
        self.groups = Groups(prompts, bias[:, None, None])
        self._own = [GrowingLayer() for _ in self._prompts]

    def keep(self, rows: Tensor) -> None:
        """Keep some rows, by index; prompts without any leave as well."""
        prompts, renumbered = torch.unique(self.groups.prompts[rows], return_inverse=True)
        if len(prompts) < len(self.groups.bias):
            self._prompts = [(keys[prompts], values[prompts]) for keys, values in self._prompts]
        self.groups = Groups(renumbered, self.groups.bias[prompts])
        for own in self._own:
            if own.get_seq_length():
                own.batch_select_indices(rows)

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Append a token to each row."""
        output = self._model(
            input_ids=tokens[:, None],
            attention_mask=None,
            position_ids=positions[:, None],
            use_cache=False,
            logits_to_keep=1,
            shared_prompts=self,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one layer.

        Args:
            layer: Its number.
            query: Shape [rows, H * G, 1, D].
            key: Of the new tokens, shape [rows, H, 1, D]; taken into the rows' own cache.
            value: As the keys.
            scale: Factor of the scores.

        Returns:
            Shape [rows, 1, H * G, D], float32.
        """
        prompt_keys, prompt_values = self._prompts[layer]
        own_keys, own_values = self._own[layer].update(key.float(), value.float())
        rows, heads, _, width = query.shape
        group = heads // key.shape[1]
        queries = (query.float() * scale).view(rows, key.shape[1], group, width)
        groups = self.groups
        to_prompt = groups.gather(queries) @ prompt_keys.transpose(-1, -2) + groups.bias
        scores = torch.cat([groups.scatter(to_prompt, group), queries @ own_keys.transpose(-1, -2)], dim=-1)
        weights = torch.softmax(scores, dim=-1)
        tokens = prompt_keys.shape[-2]
        from_prompt = groups.gather(weights[..., :tokens]) @ prompt_values
        out = groups.scatter(from_prompt, group) + weights[..., tokens:] @ own_values
        return out.reshape(rows, 1, heads, -1)


def shared_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - transformers' signature
    *,
    shared_prompts: Shared,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention over shared prompts, in the form that transformers calls."""
    if options.get("softcap") is not None or options.get("s_aux") is not None or options.get("sliding_window"):
        raise ValueError("attention with soft caps, sinks or windows")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: Any = module.layer_idx
    return shared_prompts.attend(layer, query, key, value, scale).to(query.dtype), None


@contextmanager
def going_on(model: PreTrainedModel, prefilled: Prefilled, prompts: Tensor) -> Iterator[Continuation]:
    """The cheapest way to go on that model and device allow.

    Args:
        model: The policy.
        prefilled: The prompts; used up.
        prompts: Prompt of each row, int64, shape [rows].
    """
    if not can_share(model):
        yield Expanded(model, prefilled, prompts)
        return
    with _sharing(model):
        yield Shared(model, prefilled, prompts)


@contextmanager
def _sharing(model: PreTrainedModel) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def can_share(model: PreTrainedModel) -> bool:
    """Whether a model computes over shared prompts what it computes over expanded ones; tried once, on a few tokens.

    Some models do not let their attention be replaced, or do more in it than is done here. On the CPU alone: a GPU's
    fused attention over an expanded cache has not been measured against this.
    """
    known: bool | None = getattr(model, _CHECKED, None)
    if known is None:
        known = model.device.type == "cpu" and _same(model)
        setattr(model, _CHECKED, known)
    return known


@torch.inference_mode()
def _same(model: PreTrainedModel) -> bool:
    prompts = torch.tensor([0, 0, 1])
    ways = []
    try:
        for shared in (False, True):
            prefilled = prefill(model, [[1, 2, 3, 4], [5, 6]], Prefix((), None))
            positions = prefilled.lengths[prompts]
            with _sharing(model) if shared else nullcontext():
                way = (Shared if shared else Expanded)(model, prefilled, prompts)
                way.step(torch.tensor([1, 2, 3]), positions)
                way.keep(torch.tensor([0, 2]))
                ways.append(way.step(torch.tensor([4, 5]), positions[[0, 2]] + 1).log_softmax(-1))
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
        return False
    # Broken weights give no numbers either way.
    return bool((ways[0] - ways[1]).abs().nan_to_num().max() <= _TOLERANCE[model.dtype.itemsize >= 4])


AttentionInterface.register(NAME, shared_attention)
