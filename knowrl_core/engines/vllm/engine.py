"""The engine that asks vLLM servers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from knowrl_core.engines.base import ChooseRequest, ChooseResult, GenerateRequest, GenerateResult
from knowrl_core.engines.chat import render
from knowrl_core.engines.encode import Choice, encode_choices, whole_lengths
from knowrl_core.engines.text import TextEnd, closing_token, end_tokens
from knowrl_core.engines.vllm.api import VllmApi
from knowrl_core.engines.vllm.questions import generation, nodes, samples, scores, scoring
from knowrl_core.engines.vllm.weights import ServedPolicy


class VllmEngine:
    """Answers as the engine in this process does, from servers.

    The noise is vLLM's: the same request gives the same text as far as the server's arithmetic is the same, which
    batching changes by float noise.

    Args:
        policy: The servers, and what they serve.
        tokenizer: The policy's tokenizer: prompts are rendered and responses read here, as for every engine.
        generation_config: The policy's, which names the tokens that end a response.
        name: Name of the engine, for lineage.
    """

    def __init__(self, policy: ServedPolicy, tokenizer: Any, generation_config: GenerationConfig, *, name: str) -> None:
        self.name = name
        self.policy = policy
        self._tokenizer, self._generation = tokenizer, generation_config
        self._ends = end_tokens(generation_config, tokenizer)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[GenerateResult]:
        """Sample text for each request; results come in the order of the requests, as they are ready.

        Raises:
            StageError: A prompt and its answer do not fit the context (before any work is done); the servers failed.
            InputError: The chat template refuses a conversation.
        """
        prompts = [render(self._tokenizer, request.turns) for request in requests]
        answers = [request.max_new_tokens for request in requests]
        whole_lengths(prompts, answers, self.policy.context, "max_new_tokens")
        ends = {stop: TextEnd(self._tokenizer, stop, self._ends) for stop in {request.stop for request in requests}}

        def ask(api: VllmApi, job: tuple[list[int], GenerateRequest]) -> GenerateResult:
            prompt, request = job
            answer = api.complete(generation(api.policy, prompt, request, sorted(self._ends)))
            return GenerateResult(prompt_token_ids=tuple(prompt), samples=samples(answer, request, ends[request.stop]))

        return self.policy.fleet.run(list(zip(prompts, requests, strict=True)), ask)

    def choose(self, requests: Sequence[ChooseRequest]) -> Iterator[ChooseResult]:
        """Score each request's choices; results come in the order of the requests, as they are ready.

        Raises:
            StageError: A prompt and its longest choice do not fit the context (before any work is done); the servers
                failed.
            InputError: The chat template refuses a conversation, a choice has no tokens, or it is to be closed and the
                model has no end-of-turn token.
        """
        prompts = [render(self._tokenizer, request.turns) for request in requests]
        choices = encode_choices(self._tokenizer, requests, lambda: closing_token(self._generation, self._tokenizer))
        whole_lengths(prompts, [max(map(len, group)) for group in choices], self.policy.context, "the longest choice")
        return self.policy.fleet.run(list(zip(prompts, choices, strict=True)), self._score)

    def _score(self, api: VllmApi, job: tuple[list[int], tuple[Choice, ...]]) -> ChooseResult:
        prompt, choices = job
        # One after another: the first leaves the prompt in the server's cache for the others.
        found = {node.said: scores(api.complete(scoring(api.policy, prompt, node)), node) for node in nodes(choices)}
        return ChooseResult(
            prompt_token_ids=tuple(prompt),
            token_ids=choices,
            token_logprobs=tuple(
                tuple(found[choice[:place]][token] for place, token in enumerate(choice)) for choice in choices
            ),
        )

    def load(self, folder: Path) -> None:
        """Let the servers serve the weights in another folder of the same architecture and tokenizer.

        Raises:
            StageError: A server serves other weights and cannot load these.
        """
        self.policy.load(folder)

    def rest(self) -> None:
        """Free the devices' memory until the next :meth:`load`."""
        self.policy.rest()

    def close(self) -> None:
        """End the pipeline's own server and all connections."""
        self.policy.close()
