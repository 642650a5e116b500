"""Plan the generation calls: which examples each prompt shows, and which noise it samples with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from knowrl_core.config.learning import IntrospectionConfig
from knowrl_core.engines.base import GenerateRequest, Turn
from knowrl_core.errors import InputError
from knowrl_core.labels import LABELS, Label
from knowrl_core.prompts import Prompts, Template
from knowrl_core.rng import derive_seed, stream
from knowrl_core.seeds import SeedTask
from knowrl_core.storage.schemas import PoolRecord

STAGE: Final = "generate"
"""Name of the stage in the random streams."""

_OPEN_MARK: Final = re.compile(r"(?:^|\n)[ \t]*(?:\d+[.)]|[-*])[ \t]*\Z")


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One generation call.

    Attributes:
        label: The label that tasks are asked for.
        call: Number of the call within its label, from 0.
        request: What the engine is asked.
        few_shot_ids: Ids of the examples, in the order of the prompt.
        next_number: Number of the first task that is to be written.
        prefilled: The prompt ends with an open list mark, so that the response begins inside the first item.
        instructions: The prompt's text without the examples, to find tasks that only echo it.
        prompt_sha256: Hash of the template.
    """

    label: Label
    call: int
    request: GenerateRequest
    few_shot_ids: tuple[str, ...]
    next_number: int
    prefilled: bool
    instructions: str
    prompt_sha256: str


@dataclass(frozen=True, slots=True)
class _Shot:
    id: str
    task: str


def plan_calls(
    config: IntrospectionConfig,
    seeds: Sequence[SeedTask],
    pool: Sequence[PoolRecord],
    *,
    run_seed: int,
    iteration: int,
    prompts: Prompts,
) -> list[PlannedCall]:
    """Plan the generation calls of an iteration, the labels taking turns.

    Each call draws its examples from the stream ``(run_seed, iteration, "generate", label, call)``: ``pool_shots`` from
    the pool as soon as it has that many of the label, the rest from the seeds, shuffled together (SeRL's recipe).

    Args:
        config: Number of calls, tasks and shots, and how to sample.
        seeds: Verified tasks of both labels.
        pool: The pool after the iteration before.
        run_seed: The run's seed.
        iteration: The iteration, from 1; 0 for the frozen set of the initial model.
        prompts: The templates.

    Raises:
        InputError: Too few seeds of a label.
    """
    calls = []
    for call in range(config.calls_per_label):
        for label in LABELS:
            rng = stream(run_seed, iteration, STAGE, label, call)
            shots = _draw(config, label, seeds, pool, rng)
            seed = derive_seed(run_seed, iteration, STAGE, label, call)
            calls.append(_planned(config, prompts.introspection(label), shots, label=label, call=call, seed=seed))
    return calls


def _draw(
    config: IntrospectionConfig,
    label: Label,
    seeds: Sequence[SeedTask],
    pool: Sequence[PoolRecord],
    rng: np.random.Generator,
) -> list[_Shot]:
    seed_shots = [_Shot(task.id, task.task) for task in seeds if task.label == label]
    pool_shots = [_Shot(task.id, task.task) for task in pool if task.label == label]
    from_pool = config.pool_shots if len(pool_shots) >= config.pool_shots else 0
    from_seeds = config.shots - from_pool
    if len(seed_shots) < from_seeds:
        raise InputError(
            f"got {len(seed_shots)} {label} seeds, expected at least {from_seeds} for introspection.shots "
            f"({config.shots})",
            hint="Add seeds, or lower introspection.shots.",
        )
    drawn = [seed_shots[i] for i in rng.permutation(len(seed_shots))[:from_seeds]]
    drawn += [pool_shots[i] for i in rng.permutation(len(pool_shots))[:from_pool]]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _planned(
    config: IntrospectionConfig, template: Template, shots: Sequence[_Shot], *, label: Label, call: int, seed: int
) -> PlannedCall:
    next_number = len(shots) + 1
    # An example on several lines would break the numbered list that the model is to continue.
    texts = tuple(" ".join(shot.task.split()) for shot in shots)
    turns = template.render(shots=texts, count=config.tasks_per_call, next_number=next_number)
    request = GenerateRequest(
        turns=turns,
        seed=seed,
        temperature=config.sampling.temperature,
        top_p=config.sampling.top_p,
        max_new_tokens=config.sampling.max_new_tokens,
        # The number after the last task asked for: no time is spent on tasks that would be dropped.
        stop=(f"\n{next_number + config.tasks_per_call}.",),
    )
    return PlannedCall(
        label=label,
        call=call,
        request=request,
        few_shot_ids=tuple(shot.id for shot in shots),
        next_number=next_number,
        prefilled=turns[-1].role == "assistant" and bool(_OPEN_MARK.search(turns[-1].content)),
        instructions=_instructions(turns, texts),
        prompt_sha256=template.sha256,
    )


def _instructions(turns: Sequence[Turn], shots: Sequence[str]) -> str:
    text = "\n".join(turn.content for turn in turns)
    for shot in shots:
        text = text.replace(shot, "\n")
    return text
