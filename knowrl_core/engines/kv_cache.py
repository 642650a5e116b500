"""A key-value cache that grows without copying itself at every token."""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

_ROOM = 64
"""Tokens of spare room at each growth."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers has few types
    """As transformers' dynamic layer, but appends in place.

    The stock layer concatenates, which copies all keys and values of a layer for every token: for short steps on many
    rows that costs as much as the model itself.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self._store: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *args: Any,  # noqa: ARG002 - the base class's signature
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append along the token axis.

        Args:
            key_states: Shape [rows, heads, new tokens, head size].
            value_states: As the keys.
            *args: Ignored, as in the base class.
            **kwargs: Ignored, as in the base class.

        Returns:
            All keys and all values so far, shape [rows, heads, tokens, head size].
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if self._store is None or self._store[0].shape[-2] < new:
            self._store = (
                self._grown(self.keys, key_states, old, new),
                self._grown(self.values, value_states, old, new),
            )
        store_keys, store_values = self._store
        store_keys[:, :, old:new] = key_states
        store_values[:, :, old:new] = value_states
        self.keys = store_keys[:, :, :new]
        self.values = store_values[:, :, :new]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep (or repeat) rows; the next update makes room for them."""
        super().batch_select_indices(indices)
        self._store = None

    @staticmethod
    def _grown(held: torch.Tensor | None, states: torch.Tensor, old: int, new: int) -> torch.Tensor:
        rows, heads, _, size = states.shape
        store = states.new_empty((rows, heads, new + _ROOM, size))
        if held is not None and old:
            store[:, :, :old] = held
        return store


def new_cache() -> Cache:
    """An empty cache; layers appear as the model fills them."""
    return Cache(layer_class_to_replicate=GrowingLayer)


def repeated(cache: Cache, rows: int) -> Cache:
    """A new cache that begins with the content of a one-row cache in each of its rows; the old one stays as it is."""
    copy = new_cache()
    held: Any  # a GrowingLayer, which the list of the base class does not say
    for held in cache.layers:
        layer = GrowingLayer()
        layer.lazy_initialization(held.keys, held.values)
        # Views are enough: the first update copies them into a store of its own.
        layer.keys = held.keys.expand(rows, -1, -1, -1)
        layer.values = held.values.expand(rows, -1, -1, -1)
        copy.layers.append(layer)
    return copy
