"""The engine that runs in this process, on CPU or GPU, on a transformers model."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from transformers import PreTrainedModel

from knowrl_core.engines.base import ChooseRequest, ChooseResult, GenerateRequest, GenerateResult, Sample
from knowrl_core.engines.batching import Piece, alike, plan_batches
from knowrl_core.engines.chat import render
from knowrl_core.engines.choose import score_choices
from knowrl_core.engines.decode import Row, decode
from knowrl_core.engines.encode import encode_choices, whole_lengths
from knowrl_core.engines.prefill import Prefix, compute_prefix, prefill, prefix_families
from knowrl_core.engines.text import TextEnd, closing_token, end_tokens

_Answer = TypeVar("_Answer")

_ENOUGH_TOKENS = 256
"""Tokens in a pass above which a CPU does not get faster by more: less padding is worth more then. A GPU does."""


class TransformersEngine:
    """Generation and exact scoring with one prefill per prompt.

    On the CPU the same requests give the same bits, run after run, with the same number of threads. What a request is
    batched with changes its answer by float noise at most.

    Args:
        model: The policy, in evaluation mode.
        tokenizer: Its tokenizer.
        token_budget: Most tokens in one batch of sequences, padding and room for the answers included.
        name: Name of the engine, for lineage.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, *, token_budget: int = 32_768, name: str = "transformers"
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.token_budget = token_budget
        self.name = name
        self._generation = getattr(model, "generation_config", None)
        self._ends = end_tokens(self._generation, tokenizer)
        self._context: int | None = getattr(model.config, "max_position_embeddings", None)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[GenerateResult]:
        """Sample text for each request; results come in the order of the requests, as they are ready.

        Raises:
            StageError: A prompt and its answer do not fit the model's context (before any work is done).
            InputError: The chat template refuses a conversation.
        """
        prompts = [render(self.tokenizer, request.turns) for request in requests]
        answers = [request.max_new_tokens for request in requests]
        lengths = whole_lengths(prompts, answers, self._context, "max_new_tokens")
        return self._generate(requests, prompts, lengths)

    def choose(self, requests: Sequence[ChooseRequest]) -> Iterator[ChooseResult]:
        """Score each request's choices; results come in the order of the requests, as they are ready.

        Raises:
            StageError: A prompt and its longest choice do not fit the model's context (before any work is done).
            InputError: The chat template refuses a conversation, a choice has no tokens, or it is to be closed and the
                model has no end-of-turn token.
        """
        prompts = [render(self.tokenizer, request.turns) for request in requests]
        choices = encode_choices(self.tokenizer, requests, lambda: closing_token(self._generation, self.tokenizer))
        answers = [max(map(len, group)) for group in choices]
        lengths = whole_lengths(prompts, answers, self._context, "the longest choice")
        return self._choose(prompts, choices, lengths)

    def _generate(
        self, requests: Sequence[GenerateRequest], prompts: list[list[int]], lengths: list[int]
    ) -> Iterator[GenerateResult]:
        prefix = compute_prefix(self.model, prompts)
        ends = {stop: TextEnd(self.tokenizer, stop, self._ends) for stop in {request.stop for request in requests}}

        def run(batch: list[Piece]) -> list[list[Sample]]:
            rows = [
                [
                    Row(place, sample, ask.seed, ask.temperature, ask.top_p, ask.max_new_tokens, ends[ask.stop])
                    for sample in range(piece.first, piece.first + piece.count)
                ]
                for place, piece in enumerate(batch)
                for ask in [requests[piece.request]]
            ]
            prefilled = prefill(self.model, [prompts[piece.request] for piece in batch], prefix)
            decode(self.model, prefilled, [row for group in rows for row in group])
            return [[_sample(row) for row in group] for group in rows]

        counts = [request.n for request in requests]
        for index, samples in _in_order(counts, plan_batches(lengths, counts, self.token_budget), run):
            yield GenerateResult(prompt_token_ids=tuple(prompts[index]), samples=tuple(samples))

    def _choose(
        self, prompts: list[list[int]], choices: list[tuple[tuple[int, ...], ...]], lengths: list[int]
    ) -> Iterator[ChooseResult]:
        # Prompts of several views, label orders or few-shot sets begin alike within each, hardly across them.
        families = prefix_families(prompts)
        family_of = {request: number for number, family in enumerate(families) for request in family.members}
        prefixes: dict[int, Prefix] = {}

        def run(batch: list[Piece]) -> list[list[list[tuple[float, ...]]]]:
            number = family_of[batch[0].request]
            if number not in prefixes:  # not before: the first answers come early
                members = families[number].members
                prefixes[number] = compute_prefix(self.model, [prompts[request] for request in members])
            prefilled = prefill(self.model, [prompts[piece.request] for piece in batch], prefixes[number])
            scores = score_choices(self.model, prefilled, [choices[piece.request] for piece in batch])
            return [[score] for score in scores]

        # Choices of one token need no row beyond their prompt's; the others get a copy of its cache each.
        costs = [
            length * max(1, sum(len(choice) > 1 for choice in group))
            for length, group in zip(lengths, choices, strict=True)
        ]
        enough = _ENOUGH_TOKENS if self.model.device.type == "cpu" else self.token_budget
        groups = [
            part
            for family in families
            for part in alike(family.members, {i: lengths[i] - family.root for i in family.members}, enough)
        ]
        counts = [1] * len(prompts)
        for index, (scores,) in _in_order(counts, plan_batches(costs, counts, self.token_budget, groups), run):
            yield ChooseResult(
                prompt_token_ids=tuple(prompts[index]), token_ids=choices[index], token_logprobs=tuple(scores)
            )


def _sample(row: Row) -> Sample:
    return Sample(
        text=row.end.text(row.ids),
        token_ids=tuple(row.ids),
        logprobs=tuple(row.logprobs),
        finish_reason=row.finish or "length",
    )


def _in_order(
    counts: Sequence[int],
    batches: list[list[Piece]],
    run: Callable[[list[Piece]], list[list[_Answer]]],
) -> Iterator[tuple[int, list[_Answer]]]:
    """Run the batches and give each request's answers as soon as they and those of all earlier requests are there.

    Args:
        counts: Answers that each request is to get.
        batches: From :func:`~knowrl_core.engines.batching.plan_batches`; pieces may come in any order.
        run: Answers of each piece of a batch.

    Yields:
        Index of the request and its answers in the order of the samples.
    """
    ready: list[dict[int, _Answer]] = [{} for _ in counts]
    given = 0
    for batch in batches:
        for piece, answers in zip(batch, run(batch), strict=True):
            ready[piece.request].update(enumerate(answers, start=piece.first))
        while given < len(counts) and len(ready[given]) == counts[given]:
            answered = ready[given]
            yield given, [answered[place] for place in range(counts[given])]
            ready[given] = {}
            given += 1
