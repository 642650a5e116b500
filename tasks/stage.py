"""What every stage has in common: inputs, signature, commit, logging, and its shape as a Prefect task."""

import errno
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from knowrl_core.config import Config
from knowrl_core.errors import ArtifactError, KnowrlError, StageError, WorkerDiedError
from knowrl_core.prompts import check_views
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import StageKey
from knowrl_core.storage.manifest import FileRef, Manifest
from tasks.context import RunContext
from tasks.summary import stage_summary

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        name: ``generate``, ``classify``, ``consensus``, ``update`` or ``evaluate``.
        config: The slice of the config that its result depends on.
        inputs: The files that its result depends on.
        body: Does the work: reads through the context, writes through the writer.
        uses_model: Whether it talks to the model worker.
    """

    name: str
    config: Callable[[Config], dict[str, Any]]
    inputs: Callable[[RunContext, StageKey], Sequence[FileRef]]
    body: Callable[[RunContext, StageKey, StageWriter], None]
    uses_model: bool = True


def execute(stage: Stage, ctx: RunContext, key: StageKey) -> Manifest:
    """Run a stage and commit it.

    Raises:
        StageError: It could not finish; nothing of it has appeared in the run.
    """
    manifest: Manifest | None = None
    ctx.reporter.begin(key)
    ctx.worker.begin_stage()
    try:
        writer = StageWriter(
            ctx.paths, key, seed=ctx.seed, config=stage.config(ctx.config), inputs=stage.inputs(ctx, key)
        )
        try:
            stage.body(ctx, key, writer)
            manifest = writer.commit()
            ctx.history[key] = manifest
            shutil.rmtree(ctx.paths.kept(key), ignore_errors=True)
        except BaseException:
            writer.discard()
            raise
    except Exception as error:
        raise _explain(error, key) from error
    finally:
        if stage.uses_model and not ctx.config.engine.warm:
            ctx.worker.close()
        ctx.reporter.end(key, stage_summary(manifest, ctx.history) if manifest else None)
    ctx.tracker.log_stage(key, manifest)
    return manifest


def stage_task(stage: Stage) -> Task[[RunContext, str, int], dict[str, Any]]:
    """A stage as a Prefect task, named by run, iteration and stage.

    Prefect's own cache is off: whether a stage is done is decided by its directory alone, so that the two can never
    disagree. A retry is allowed only where it can help, which is a model worker that died.
    """

    @task(
        name=stage.name,
        task_run_name=f"{{run}}/it{{iteration:03d}}/{stage.name}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retry_condition_fn=lambda _task, _run, state: isinstance(state.result(raise_on_failure=False), WorkerDiedError),
    )
    def run_stage(ctx: RunContext, run: str, iteration: int) -> dict[str, Any]:  # noqa: ARG001 - run names the task run
        try:
            manifest = execute(stage, ctx, StageKey(iteration, stage.name))
        except WorkerDiedError as error:  # it may be tried again: say what happened before
            ctx.reporter.warning(error.message.partition("\n")[0])
            raise
        return {"signature": manifest.signature, "metrics": manifest.metrics, "seconds": manifest.seconds}

    run_stage.__doc__ = stage.body.__doc__
    return run_stage


def track(items: Iterable[T], ctx: RunContext, total: int, *, done: int = 0, of: int = 0) -> Iterator[T]:
    """Pass items on and report progress.

    Args:
        items: What is passed on.
        ctx: The run, whose reporter is told.
        total: How many items there are.
        done: Items of earlier parts of the stage.
        of: Items of the whole stage, if this is only a part of it.
    """
    for number, item in enumerate(items, start=1):
        yield item
        ctx.reporter.advance(done + number, of or total)


def _explain(error: Exception, key: StageKey) -> KnowrlError:
    """What went wrong in a stage, as an error that names the stage.

    An error of the input becomes one of the stage: the run has been created by now, so exit code 2 would mislead.
    """
    if isinstance(error, KnowrlError):
        kind = type(error) if isinstance(error, StageError | ArtifactError) else StageError
        return kind(f"stage {key}: {error.message}", hint=error.hint)
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "Free some space, or lower retention.keep_last." if full else ""
        return StageError(f"stage {key}: {error.strerror or error}: {error.filename or 'disk'}", hint=hint)
    return StageError(
        f"stage {key}: {type(error).__name__}: {error}"[:4_000], hint="KNOWRL_TRACEBACK=1 shows where in the code."
    )


def engine_slice(config: Config) -> dict[str, Any]:
    """The part of the engine's config that its results depend on (batch sizes do not count)."""
    return {**config.engine.arithmetic(), "device": config.model.device}


def verdict_slice(config: Config) -> dict[str, Any]:
    """How verdicts are asked, with the wording of the views, which is code and not a template file."""
    wording = {view.name: view.variables() for view in check_views(config.verdict.views)}
    return {**config.verdict.model_dump(mode="json"), "views": wording}


def finite_mean(name: str, values: Iterable[float | None]) -> dict[str, float]:
    """``{name: mean}`` over the values that are not None; empty without any, since a mean of nothing is no number."""
    known = [float(value) for value in values if value is not None]
    return {name: math.fsum(known) / len(known)} if known else {}
