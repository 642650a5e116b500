"""The loop as a Prefect flow: ``knowrl``, deployed as ``knowrl/train``.

Resuming is starting it again with the same run name. The run directory alone says what is done, so this holds after a
failure, a kill, Control-C, a Prefect retry, or on another Prefect server.
"""

from typing import Annotated, Any

from prefect import Task, flow
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from pydantic import Field

from flows.artifacts import publish
from knowrl_core.config import DEFAULT_PROFILE, Config, build_config, deep_merge, load_config
from knowrl_core.errors import StageError
from knowrl_core.storage.layout import CLASSIFY, CONSENSUS, EVALUATE, GENERATE, UPDATE, stage_keys
from tasks.classify import classify
from tasks.consensus import consensus
from tasks.context import RunContext
from tasks.evaluate import evaluate
from tasks.generate import generate
from tasks.open_run import apply_retention, open_run
from tasks.progress import current_reporter
from tasks.update import update

StageTask = Task[[RunContext, str, int], dict[str, Any]]

STAGE_TASKS: dict[str, StageTask] = {
    GENERATE: generate,
    CLASSIFY: classify,
    CONSENSUS: consensus,
    UPDATE: update,
    EVALUATE: evaluate,
}


def resolve(profile: str, run: str | None, config: Config | None) -> Config:
    """The config of a flow run: the profile, then the fields given in ``config``, then the run name."""
    data = load_config(profile).model_dump(mode="json")
    if config is not None:
        data = deep_merge(data, config.model_dump(mode="json", exclude_unset=True))
    if run is not None:
        data = deep_merge(data, {"run": {"name": run}})
    return build_config(data, source=f"profile {profile!r} with the flow's parameters")


def _flow_run_name() -> str:
    parameters = flow_run.parameters
    config = parameters.get("config")
    section = getattr(config, "run", None)
    name = parameters.get("run") or (section.name if section and "name" in section.model_fields_set else None)
    return str(name or parameters.get("profile") or "knowrl")


@flow(name="knowrl", flow_run_name=_flow_run_name, persist_result=False)
def train(
    profile: Annotated[str, Field(description="Profile (smoke, cpu, llama31-8b, qwen25-7b) or path to a YAML file")] = (
        DEFAULT_PROFILE
    ),
    run: Annotated[
        str | None, Field(description="Name of the run; the same name goes on where that run stopped")
    ] = None,
    config: Annotated[
        Config | None, Field(description="Fields that differ from the profile, such as {'rl': {'kl_coef': 0.001}}")
    ] = None,
    repair: Annotated[bool, Field(description="Do damaged stages, and what follows from them, again")] = False,
) -> dict[str, Any]:
    """Teach a model what it can and cannot do: generate, classify, consensus, update and evaluate, n times."""
    resolved = resolve(profile, run, config)
    context = FlowRunContext.get()
    flow_run_id = str(context.flow_run.id) if context and context.flow_run else None
    reporter = current_reporter()
    with open_run(resolved, reporter, repair=repair, flow_run=flow_run_id) as ctx:
        keys = list(stage_keys(resolved.run.iterations))
        pending = [key for key in keys if key not in ctx.history]
        if pending and len(pending) < len(keys):
            reporter.message(
                f"resuming at {pending[0]}: {len(keys) - len(pending)} of {len(keys)} stages are committed"
            )
        elif not pending:
            reporter.message(f"all {len(keys)} stages are committed; nothing to do")
        previous = None
        for key in pending:
            stage = STAGE_TASKS[key.stage].with_options(
                retries=resolved.orchestration.retries, retry_delay_seconds=resolved.orchestration.retry_delay
            )
            previous = stage(
                ctx, resolved.run.name, key.iteration, return_state=True, wait_for=[previous] if previous else None
            )
            if not previous.is_completed():
                previous.result()  # raises what the stage raised
                raise StageError(f"stage {key} ended {previous.name}, expected Completed")
            if key.stage == EVALUATE:
                apply_retention(ctx)
        publish(ctx)
        return {"run": str(ctx.paths.folder), "tracking_uri": ctx.tracker.uri}
