"""From requests to token ids, alike for every engine; what does not fit is refused before any work is done."""

from collections.abc import Callable, Sequence
from typing import Any

from knowrl_core.engines.base import ChooseRequest
from knowrl_core.engines.chat import encode_continuation
from knowrl_core.errors import StageError

Choice = tuple[int, ...]


def encode_choices(
    tokenizer: Any, requests: Sequence[ChooseRequest], closing: Callable[[], int]
) -> list[tuple[Choice, ...]]:
    """Token ids of each request's choices.

    Args:
        tokenizer: The policy's tokenizer.
        requests: The requests.
        closing: Gives the id that ends a response; called only if a request is closed.

    Raises:
        InputError: A choice has no tokens.
    """
    texts = {text for request in requests for text in request.choices}
    encoded = {text: tuple(encode_continuation(tokenizer, text)) for text in texts}
    close = (closing(),) if any(request.closed for request in requests) else ()
    return [
        tuple(encoded[text] + (close if request.closed else ()) for text in request.choices) for request in requests
    ]


def whole_lengths(
    prompts: Sequence[Sequence[int]], answers: Sequence[int], context: int | None, what: str
) -> list[int]:
    """Tokens of each prompt with its longest answer; what does not fit the model's context is refused.

    Args:
        prompts: Token ids of each prompt.
        answers: Tokens of each longest answer.
        context: Most tokens of both together; None if nobody knows.
        what: The answer, for the error.

    Raises:
        StageError: Naming the first request that does not fit.
    """
    lengths = [len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
    for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        if context is not None and length > context:
            raise StageError(
                f"request {index + 1} of {len(prompts)} needs {length} tokens ({len(prompt)} of the prompt and "
                f"{length - len(prompt)} for {what}); the model's context holds {context}",
                hint="Lower max_new_tokens, the number of shots or the longest task "
                "(introspection.filters.max_words), or choose a model with a longer context.",
            )
    return lengths
