"""The loop as a Prefect flow: ``knowrl``, deployed as ``knowrl/train``.

Resuming is starting it again with the same run name. The run directory alone says what is done, so this holds after a
failure, a kill, Control-C, a Prefect retry, or on another Prefect server.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from prefect import Task, flow
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from pydantic import Field

from flows.artifacts import publish_report
from flows.dead_attempts import mark_crashed
from flows.parameters import fields_of, overlaid, profile_of
from flows.remote import check_places
from flows.run_artifacts import RunArtifacts
from flows.worker_watch import ends_with_its_worker
from knowrl_core.config import (
    RUN_NAME,
    Config,
    build_config,
    deep_merge,
    redacted,
)
from knowrl_core.errors import KnowrlError, StageError
from knowrl_core.guards import Stop
from knowrl_core.storage.layout import CLASSIFY, CONSENSUS, EVALUATE, GENERATE, STAGES, UPDATE, RunPaths, StageKey
from knowrl_core.storage.roots import look, run_paths
from knowrl_core.storage.run_file import RunFile
from tasks.classify import classify
from tasks.consensus import consensus
from tasks.context import RunContext
from tasks.evaluate import evaluate
from tasks.fork import fork_run
from tasks.generate import generate
from tasks.guarding import overruled, stop_now
from tasks.open_run import open_run
from tasks.prepare import prepare
from tasks.progress import current_reporter
from tasks.restore import restore_policy
from tasks.retention import apply_retention
from tasks.starting import keys_of
from tasks.update import update
from tasks.warmup import warmup

StageTask = Task[[RunContext, str, int], dict[str, Any]]

STAGE_TASKS: dict[str, StageTask] = {
    GENERATE: generate,
    CLASSIFY: classify,
    CONSENSUS: consensus,
    UPDATE: update,
    EVALUATE: evaluate,
}


def resolve(profile: str | None, run: str | None, config: Config | None, fork: str | None = None) -> Config:
    """The config of a flow run: the profile, then the fields given in ``config``, then the run name.

    Without a profile a run that is there already keeps what it was last started with, and a fork what the other run had
    at that point.

    Raises:
        InputError: Something is wrong, or is not for a flow run to choose (:mod:`flows.remote`).
    """
    given = fields_of(config)
    if run is not None:
        given = deep_merge(given, {"run": {"name": run}})
    data = profile_of(profile)
    if profile is None:
        new = build_config(deep_merge(data, given), source="the flow's parameters")
        check_places({"run.root": new.run.root}, writing=True)
        paths = look(run_paths(new.run.root, new.run.name))
        if paths.run_file.exists():
            data = deep_merge(RunFile.read(paths).config, {"run": {"root": paths.location}})
        elif fork is not None:
            old, at = _forked(new, fork)
            data = deep_merge(RunFile.read(old).config_at(at), {"run": {"root": old.location}})
    return overlaid(data, given, f"profile {profile!r} with the flow's parameters")


def _forked(config: Config, fork: str) -> tuple[RunPaths, StageKey]:
    """The run and the point that ``RUN@ITERATION/STAGE`` means, in the root of the new one."""
    name, _, at = fork.partition("@")
    other = build_config(config.model_dump(mode="json"), [f"run.name={name}"], source="the flow's parameter fork")
    return look(run_paths(other.run.root, other.run.name)), StageKey.parse(at)


def _fork(config: Config, fork: str) -> None:
    """Make the run as a fork, unless it is there: a flow run that is tried again goes on with it."""
    if look(run_paths(config.run.root, config.run.name)).run_file.exists():
        return
    old, at = _forked(config, fork)
    how = fork_run(old, at, config, prepare(config).pins)
    current_reporter().message(f"run {config.run.name} was forked from {old.name} at {at}; it {how}")


def flow_run_name() -> str:
    """Name of a flow run: that of the run which it does."""
    values = flow_run.parameters
    try:
        return resolve(*(values.get(name) for name in ("profile", "run", "config", "fork"))).run.name
    except KnowrlError:  # the flow itself says what is wrong
        return str(values.get("run") or values.get("profile") or "knowrl")


@flow(name="knowrl", flow_run_name=flow_run_name, persist_result=False)
def train(  # noqa: PLR0917 - a flow's parameters have names for whoever calls it
    profile: str | None = None,
    run: Annotated[str | None, Field(json_schema_extra={"pattern": f"^{RUN_NAME.pattern}$"})] = None,
    config: Config | None = None,
    repair: bool = False,
    from_stage: Annotated[str | None, Field(json_schema_extra={"pattern": r"^\d{1,6}/[a-z]+$"})] = None,
    fork: Annotated[str | None, Field(json_schema_extra={"pattern": rf"^{RUN_NAME.pattern}@\d{{1,6}}/[a-z]+$"})] = None,
    only: list[Literal["generate", "classify", "consensus", "update", "evaluate"]] | None = None,
) -> dict[str, Any]:
    """Teach a model what it can and cannot do: generate, classify, consensus, update and evaluate, n times.

    Args:
        profile: Profile (smoke, cpu, llama31-8b, qwen25-7b) or path to a YAML file. Empty: what the run was last
            started with, or cpu for a new run.
        run: Name of the run; the same name goes on where that run stopped.
        config: Fields that differ from the profile, such as {"rl": {"kl_coef": 0.001}}.
        repair: Do damaged stages, and what follows from them, again.
        from_stage: Go back to this stage, such as 7/update: it and what follows are removed and done again, once. A
            retry of the flow run goes on.
        fork: Make the run as a fork of another one in the same root, such as first@2/update, sharing what comes before;
            once it is there, go on with it.
        only: Stages that may be done here; at the first other one it ends, for others to go on. Empty: all.
    """
    start = StageKey.parse(from_stage) if from_stage else None
    resolved = resolve(profile, run, config, fork)
    if fork is not None:
        _fork(resolved, fork)
    context = FlowRunContext.get()
    flow_run_id = str(context.flow_run.id) if context and context.flow_run else None
    with (
        ends_with_its_worker(),
        RunArtifacts(current_reporter()) as reporter,
        open_run(resolved, reporter, repair=repair, start=start, flow_run=flow_run_id, only=only or STAGES) as ctx,
    ):
        mark_crashed(ctx)
        keys = keys_of(resolved)
        pending = [key for key in keys if key not in ctx.history]
        stop = stop_now(ctx) if pending else None
        if stop is not None:
            pending = []
        elif pending and (len(ctx.run_file.attempts) > 1 or len(pending) < len(keys)):
            reporter.message(
                f"resuming at {pending[0]}: {len(keys) - len(pending)} of {len(keys)} stages are committed"
            )
            overruled(ctx)
        elif not pending:
            reporter.message(f"all {len(keys)} stages are committed; nothing to do")
        stop = stop or _do(ctx, pending, only or STAGES)
        ctx.stopped = stop is not None
        reporter.stop = stop
        if ctx.stopped or all(key in ctx.history for key in keys):
            publish_report(ctx)
        return {
            "run": str(ctx.paths.folder),
            "tracking_uri": redacted(ctx.tracker.uri),
            "stopped": stop.reason if stop else None,
        }


def _do(ctx: RunContext, pending: list[StageKey], only: Sequence[str]) -> Stop | None:
    """Do the stages one after another, until a guard ends the run or one is to be done elsewhere."""
    options = ctx.config.orchestration
    previous = None
    if pending and pending[0].stage in only:
        restore_policy(ctx, pending[0])
    for key in pending:
        if key.stage not in only:
            ctx.reporter.message(f"{key} is to be done elsewhere")
            return None
        if key.stage == UPDATE:
            apply_retention(ctx, coming=key.iteration)
        body = warmup if key.stage == UPDATE and ctx.is_warmup(key.iteration) else STAGE_TASKS[key.stage]
        stage = body.with_options(retries=options.retries, retry_delay_seconds=options.retry_delay)
        previous = stage(
            ctx, ctx.config.run.name, key.iteration, return_state=True, wait_for=[previous] if previous else None
        )
        if not previous.is_completed():
            previous.result()  # raises what the stage raised
            raise StageError(f"stage {key} ended {previous.name}, expected Completed")
        if key.stage == EVALUATE:
            apply_retention(ctx)
            # After the last stage there is nothing left to stop; what fired has been said.
            stop = stop_now(ctx) if key != pending[-1] else None
            if stop is not None:
                return stop
    return None
