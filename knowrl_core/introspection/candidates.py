"""Turn the responses of the generation calls into candidates, each kept or with the reason why not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final

from knowrl_core.config.learning import FilterConfig, IntrospectionConfig
from knowrl_core.engines.base import GenerateResult
from knowrl_core.errors import StageError
from knowrl_core.introspection.filters import FilterContext, drop_reason
from knowrl_core.introspection.parse import ParsedItem, parse_list
from knowrl_core.introspection.plan import PlannedCall
from knowrl_core.introspection.similarity import Match, SimilarityIndex, WordIndex
from knowrl_core.labels import LABELS
from knowrl_core.seeds import SeedTask
from knowrl_core.storage.schemas import Candidate, PoolRecord

TRUNCATED: Final = "truncated"
SURPLUS: Final = "surplus"

CALLS_AHEAD: Final = 200
"""Calls whose tasks are searched for together, which is quicker than one by one."""


def build_candidates(
    results: Iterable[GenerateResult],
    plan: Sequence[PlannedCall],
    *,
    config: IntrospectionConfig,
    seeds: Sequence[SeedTask],
    pool: Sequence[PoolRecord],
    iteration: int,
    engine: str,
    policy: str,
    held_out: Mapping[str, Sequence[tuple[str, str]]] | None = None,
) -> list[Candidate]:
    """Parse, filter, deduplicate and balance what the calls gave.

    Args:
        results: One result a planned call, in the order of the plan, each with one sample.
        plan: The calls.
        config: Bounds.
        seeds: All seeds; a candidate may not nearly repeat one.
        pool: All pool tasks; likewise.
        iteration: The iteration.
        engine: Engine and arithmetic, for the lineage.
        policy: Policy, for the lineage.
        held_out: Tasks that measure, as (id, text) by the name of their set. A candidate that nearly repeats one is
            dropped as ``duplicate_of_<set>``, so that nothing measured is trained on or enters the pool.

    Returns:
        Every parsed task in the order of plan and list, dropped ones with their reason.

    Raises:
        StageError: The number of results is not that of the plan.
    """
    duplicates = _Duplicates(config.filters, seeds, pool, held_out or {})
    found = []
    answers = list(results)
    if len(answers) != len(plan):
        raise StageError(f"got {len(answers)} generation results, expected {len(plan)}, one a planned call")
    samples = [result.samples[0] for result in answers]
    parsed = [
        parse_list(sample.text, prefilled=call.prefilled, finish_reason=sample.finish_reason)
        for call, sample in zip(plan, samples, strict=True)
    ]
    for number, (call, sample, items) in enumerate(zip(plan, samples, parsed, strict=True)):
        if number % CALLS_AHEAD == 0:
            duplicates.expect([item.text for coming in parsed[number : number + CALLS_AHEAD] for item in coming])
        context = FilterContext(config.filters, call.instructions)
        accepted = 0
        for place, item in enumerate(items):
            task_id = f"it{iteration:03d}/{call.label}/{call.call:03d}/{place:02d}"
            reason, match = _judge(item, context, duplicates, full=accepted >= config.tasks_per_call)
            if reason is None:
                accepted += 1
                duplicates.add(task_id, item.text)
            found.append(
                Candidate(
                    id=task_id,
                    task=item.text,
                    intended=call.label,
                    iteration=iteration,
                    call=call.call,
                    item=place,
                    kept=reason is None,
                    drop_reason=reason,
                    similar_to=match.id if match else None,
                    similarity=match.similarity if match else None,
                    few_shot_ids=list(call.few_shot_ids),
                    prompt_sha256=call.prompt_sha256,
                    engine=engine,
                    policy=policy,
                    seed=call.request.seed,
                    finish_reason=sample.finish_reason,
                )
            )
    return drop_surplus(found, config.max_candidates)


def drop_surplus(candidates: Sequence[Candidate], max_candidates: int) -> list[Candidate]:
    """Keep at most ``max_candidates``, the same number a label as far as they reach.

    A label with too few leaves its places to the other. Within a label first items go first, so that all calls
    contribute.
    """
    kept = [
        sorted((c for c in candidates if c.kept and c.intended == label), key=lambda c: (c.item, c.call))
        for label in LABELS
    ]
    turns = (c for pair in zip_longest(*kept) for c in pair if c is not None)
    stay = {c.id for c, _ in zip(turns, range(max_candidates), strict=False)}
    return [
        replace(c, kept=False, drop_reason=SURPLUS) if c.kept and c.id not in stay else c for c in candidates
    ]  # fmt: skip


@dataclass(slots=True)
class _Duplicates:
    """Held-out sets, seeds, pool and this batch so far; the first that has a near-duplicate names the reason."""

    indexes: dict[str, SimilarityIndex]
    at_least: float

    def __init__(
        self,
        config: FilterConfig,
        seeds: Sequence[SeedTask],
        pool: Sequence[PoolRecord],
        held_out: Mapping[str, Sequence[tuple[str, str]]],
    ) -> None:
        self.at_least = config.max_similarity
        stored = {f"duplicate_of_{name}": tasks for name, tasks in held_out.items()} | {
            "duplicate_of_seed": [(seed.id, seed.task) for seed in seeds],
            "duplicate_in_pool": [(task.id, task.task) for task in pool],
            "duplicate_in_batch": [],
        }
        self.indexes = {reason: WordIndex() for reason in stored}
        for reason, tasks in stored.items():
            for task_id, text in tasks:
                self.indexes[reason].add(task_id, text)

    def add(self, task_id: str, text: str) -> None:
        self.indexes["duplicate_in_batch"].add(task_id, text)

    def expect(self, texts: Sequence[str]) -> None:
        for index in self.indexes.values():
            index.expect(texts, self.at_least)

    def find(self, text: str) -> tuple[str, Match] | None:
        for reason, index in self.indexes.items():
            if match := index.nearest(text, self.at_least):
                return reason, match
        return None


def _judge(
    item: ParsedItem, context: FilterContext, duplicates: _Duplicates, *, full: bool
) -> tuple[str | None, Match | None]:
    if not item.complete:
        return TRUNCATED, None
    if reason := drop_reason(item.text, context):
        return reason, None
    if duplicate := duplicates.find(item.text):
        return duplicate
    return (SURPLUS, None) if full else (None, None)
