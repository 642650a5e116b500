"""``torch.compile`` for what a layer does around its attention."""

from typing import Any

from transformers import PreTrainedModel


def compile_layers(model: PreTrainedModel) -> int:
    """Compile the feed-forward parts and norms of every layer in place; returns how many modules that were.

    They are compiled by themselves (regional compilation): layers are alike, so that one compilation serves all of
    them, and the attention, whose caches change their form from batch to batch, stays as it is. Shapes are dynamic:
    another batch size compiles nothing anew.
    """
    decoder: Any = model.get_decoder()  # type: ignore[no-untyped-call]
    parts = [part for layer in decoder.layers for part in layer.children() if not hasattr(part, "layer_idx")]
    for part in parts:
        part.compile(dynamic=True)
    return len(parts)
