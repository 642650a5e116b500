"""When a response ends, and what its text is."""

from collections.abc import Iterable, Sequence
from typing import Any

from transformers import GenerationConfig

from knowrl_core.errors import InputError

_MARGIN = 8
"""Tokens looked at beyond what a stop string can cover; decoders may treat the first ones of a piece differently."""


def end_tokens(config: GenerationConfig | None, tokenizer: Any) -> frozenset[int]:
    """Ids that end a response: those of the generation config (one or several) and the tokenizer's."""
    found: list[Any] = [tokenizer.eos_token_id]
    eos = getattr(config, "eos_token_id", None)
    found += eos if isinstance(eos, list) else [eos]
    return frozenset(int(token) for token in found if token is not None)


def closing_token(config: GenerationConfig | None, tokenizer: Any) -> int:
    """The id that ends a response that is written for the model: the tokenizer's, or else the lowest that ends one.

    Raises:
        InputError: The model has none.
    """
    if tokenizer.eos_token_id is not None:
        return int(tokenizer.eos_token_id)
    ends = end_tokens(config, tokenizer)
    if not ends:
        raise InputError(
            "the model has no end-of-turn token, expected one to close a response with",
            hint="Set eos_token in its tokenizer_config.json, or use verdict.mode constrained.",
        )
    return min(ends)


class TextEnd:
    """Finds the end of the responses of one request."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(string for string in stop if string)
        self._ends = ends
        # A token has at least one byte, so a stop string cannot span more tokens than it has bytes.
        self._window = max((len(string.encode()) for string in self._stop), default=0) + _MARGIN

    def stopped(self, ids: Sequence[int]) -> bool:
        """Whether the newest token ends the response, by itself or by completing a stop string."""
        if ids[-1] in self._ends:
            return True
        return bool(self._stop) and self._find(self._decode(ids[-self._window :])) is not None

    def text(self, ids: Sequence[int]) -> str:
        """The response's text: up to the first stop string, without control tokens."""
        if ids and ids[-1] in self._ends:
            ids = ids[:-1]
        text = self._decode(ids)
        cut = self._find(text)
        return text if cut is None else text[:cut]

    def _find(self, text: str) -> int | None:
        places: Iterable[int] = (text.find(string) for string in self._stop)
        return min((place for place in places if place >= 0), default=None)

    def _decode(self, ids: Sequence[int]) -> str:
        decoded: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return decoded
