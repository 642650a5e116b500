"""Requests as vLLM takes them, and its answers as engines give them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from knowrl_core.engines.base import GenerateRequest, Sample
from knowrl_core.engines.encode import Choice
from knowrl_core.engines.text import TextEnd
from knowrl_core.engines.vllm.api import ServerGoneError
from knowrl_core.rng import derive_seed


def generation(model: str, prompt: Sequence[int], request: GenerateRequest, ends: Sequence[int]) -> dict[str, Any]:
    """Sample ``n`` responses to a prompt.

    vLLM gives sample ``j`` the seed ``seed + j``, so that neighbouring seeds would share samples: the request's seed is
    hashed first. Sample ``j`` does not depend on ``n``.
    """
    return {
        "model": model,
        "prompt": list(prompt),
        "n": request.n,
        "seed": derive_seed(request.seed, "vllm"),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_new_tokens,
        "stop": [string for string in request.stop if string],
        "stop_token_ids": list(ends),
        "logprobs": 0,  # of the sampled token alone
        "return_token_ids": True,
        **_PLAIN,
    }


_PLAIN: dict[str, Any] = {
    # Whatever the model's generation config may say.
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "add_special_tokens": False,
}


def samples(answer: dict[str, Any], request: GenerateRequest, end: TextEnd) -> tuple[Sample, ...]:
    """The samples of an answer to :func:`generation`, in their order.

    Raises:
        ServerGoneError: The answer has another form.
    """
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        found = tuple(_sample(choice, end) for choice in choices)
    except (KeyError, TypeError, ValueError) as error:
        raise ServerGoneError(f"the answer has not the form of a completion: {error!r}") from error
    if len(found) != request.n:
        raise ServerGoneError(f"got {len(found)} samples, expected {request.n}")
    return found


def _sample(choice: dict[str, Any], end: TextEnd) -> Sample:
    ids = tuple(int(token) for token in choice["token_ids"])
    logprobs = tuple(float(value) for value in choice["logprobs"]["token_logprobs"])
    if len(logprobs) != len(ids):
        raise ValueError(f"{len(ids)} tokens with {len(logprobs)} log-probabilities")
    return Sample(
        text=end.text(ids),
        token_ids=ids,
        logprobs=logprobs,
        finish_reason="stop" if choice["finish_reason"] == "stop" else "length",
    )


class Node(NamedTuple):
    """A place in the tree of choices: what of them has been said, and the tokens that may follow."""

    said: Choice
    following: tuple[int, ...]


def nodes(choices: Sequence[Choice]) -> list[Node]:
    """The places where a next token has to be scored, the root first.

    Asking for the next tokens of each place is exact, and a server that caches prefixes computes each prompt once.
    ``prompt_logprobs`` would do as well, but vLLM does not read its cache for it.
    """
    after: dict[Choice, set[int]] = {}
    for choice in choices:
        for place, token in enumerate(choice):
            after.setdefault(choice[:place], set()).add(token)
    return [Node(said, tuple(sorted(tokens))) for said, tokens in sorted(after.items(), key=lambda item: len(item[0]))]


def scoring(model: str, prompt: Sequence[int], node: Node) -> dict[str, Any]:
    """The log-probabilities of the tokens that may follow a node."""
    return {
        "model": model,
        "prompt": [*prompt, *node.said],
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": len(node.following),
        "logprob_token_ids": list(node.following),
        "return_tokens_as_token_ids": True,
        **_PLAIN,
    }


def scores(answer: dict[str, Any], node: Node) -> dict[int, float]:
    """Log-probability by token of an answer to :func:`scoring`.

    Raises:
        ServerGoneError: The answer has another form.
    """
    try:
        top = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        return {token: float(top[f"token_id:{token}"]) for token in node.following}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ServerGoneError(f"the answer lacks the log-probabilities that were asked for: {error!r}") from error
