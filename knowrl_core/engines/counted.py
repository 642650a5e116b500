"""Counts the tokens of an engine's answers as they come."""

from collections.abc import Callable, Iterator, Sequence

from knowrl_core.engines.base import ChooseRequest, ChooseResult, GenerateRequest, GenerateResult, GenerationEngine


class CountedEngine:
    """An engine that tells how many tokens it wrote or scored: with choices the prompt counts, too.

    Args:
        engine: Answers.
        on_tokens: Told after each answer.
    """

    def __init__(self, engine: GenerationEngine, on_tokens: Callable[[int], None]) -> None:
        self._engine, self._on_tokens = engine, on_tokens

    @property
    def name(self) -> str:
        """Engine and arithmetic, as the lineage names it."""
        return self._engine.name

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[GenerateResult]:
        """Sample text for each request, in order."""
        for answer in self._engine.generate(requests):
            self._on_tokens(sum(len(sample.token_ids) for sample in answer.samples))
            yield answer

    def choose(self, requests: Sequence[ChooseRequest]) -> Iterator[ChooseResult]:
        """Score each request's choices, in order."""
        for answer in self._engine.choose(requests):
            self._on_tokens(len(answer.prompt_token_ids) + sum(map(len, answer.token_ids)))
            yield answer
