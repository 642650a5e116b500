"""Judge tasks: ask the engine, and return k verdicts for each."""

from collections.abc import Callable, Iterator, Sequence

from knowrl_core.config.learning import VerdictConfig
from knowrl_core.engines.base import GenerationEngine
from knowrl_core.errors import StageError
from knowrl_core.prompts import Prompts
from knowrl_core.rng import stream
from knowrl_core.storage.schemas import VerdictRecord
from knowrl_core.verdicts.ask import Ask, Question, choose_request, generate_request, plan_asks
from knowrl_core.verdicts.records import Lineage, constrained_records, free_records

Progress = Callable[[int, int], None]
"""Told (prompts answered, prompts in all)."""


def judge_tasks(
    engine: GenerationEngine,
    tasks: Sequence[tuple[str, str]],
    *,
    config: VerdictConfig,
    prompts: Prompts,
    run_seed: int,
    iteration: int,
    stage: str,
    engine_name: str,
    policy: str,
    k: int | None = None,
    progress: Progress | None = None,
) -> list[VerdictRecord]:
    """Ask for k verdicts on each task.

    Noise comes from the stream ``(run_seed, iteration, stage, task id)``, so a task's verdicts do not depend on which
    other tasks are judged or in which order.

    Args:
        engine: The engine.
        tasks: Id and text of each task; ids are unique.
        config: Mode, views and sampling.
        prompts: The templates.
        run_seed: The run's seed.
        iteration: The iteration.
        stage: Name of the stage in the random streams.
        engine_name: Engine and its arithmetic, for the lineage.
        policy: Policy, for the lineage.
        k: Verdicts a task; ``config.k`` if None.
        progress: Told after each prompt.

    Returns:
        ``k`` rows a task, in the order of the tasks and then of the sample numbers.

    Raises:
        StageError: An id stands twice, or the engine answers with another number of results.
    """
    k = config.k if k is None else k
    template = prompts.verdict(config.mode)
    lineage = Lineage(template.sha256, engine_name, policy)
    questions = [Question(task_id, text) for task_id, text in tasks]
    asks = plan_asks(questions, template, config, k=k, run_seed=run_seed, iteration=iteration, stage=stage)
    rows: dict[str, list[VerdictRecord]] = {question.id: [] for question in questions}

    def draw(task_id: str) -> list[float]:
        return [float(uniform) for uniform in stream(run_seed, iteration, stage, task_id).random(k)]

    answered = 0
    for ask, records in _answers(engine, asks, config, lineage, draw=draw):
        rows[ask.question.id] += records
        answered += 1
        if progress is not None:
            progress(answered, len(asks))
    if answered != len(asks):
        raise StageError(f"got {answered} answers from the engine, expected {len(asks)}, one a prompt")
    return [row for task_rows in rows.values() for row in sorted(task_rows, key=lambda row: row.sample)]


def _answers(
    engine: GenerationEngine,
    asks: Sequence[Ask],
    config: VerdictConfig,
    lineage: Lineage,
    *,
    draw: Callable[[str], list[float]],
) -> Iterator[tuple[Ask, list[VerdictRecord]]]:
    # Not strict: a missing answer is counted and reported by the caller, with the number. The answers come first, so
    # that they are read to their end.
    if config.mode == "free":
        results = engine.generate([generate_request(ask, config) for ask in asks])
        for result, ask in zip(results, asks, strict=False):
            yield ask, free_records(ask, result, lineage)
        return
    uniforms: dict[str, list[float]] = {}
    for answer, ask in zip(engine.choose([choose_request(ask) for ask in asks]), asks, strict=False):
        task_id = ask.question.id
        if task_id not in uniforms:
            uniforms[task_id] = draw(task_id)
        yield ask, constrained_records(ask, answer, uniforms[task_id], config.sampling.temperature, lineage)
