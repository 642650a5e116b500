"""A run whose stages are done in two work pools, as flow ``knowrl``, deployed as ``knowrl/relay``.

A GPU is free for another run while a CPU worker does the consensus. Flow runs of deployment ``train`` pass the run on
through its directory, so both pools must see the artifact root.
"""

from typing import Any, Final, cast

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.deployment import no_worker
from flows.parameters import fields_of
from flows.train import flow_run_name, resolve
from knowrl_core.config import Config
from knowrl_core.errors import StageError
from knowrl_core.guards import find_stop
from knowrl_core.storage.layout import CONSENSUS, STAGES, StageKey
from knowrl_core.storage.roots import look, run_paths
from knowrl_core.storage.verify import committed_manifests
from tasks.progress import current_reporter
from tasks.starting import keys_of

ON_CPU: Final = (CONSENSUS,)
ON_GPU: Final = tuple(stage for stage in STAGES if stage not in ON_CPU)


@flow(name="knowrl", flow_run_name=flow_run_name, persist_result=False)
def relay(
    profile: str | None = None,
    run: str | None = None,
    config: Config | None = None,
    gpu: str = "knowrl/train-gpu",
    cpu: str = "knowrl/train",
) -> None:
    """Have a run done by two deployments in turn: stages with a model on a GPU, the others on a CPU.

    Args:
        profile: As of `train`.
        run: As of `train`.
        config: As of `train`.
        gpu: Deployment for generate, classify, update and evaluate.
        cpu: Deployment for consensus.
    """
    resolved = resolve(profile, run, config)
    given = fields_of(config) or None
    before = None
    while (key := next_stage(resolved)) is not None:
        stages, deployment = (ON_CPU, cpu) if key.stage in ON_CPU else (ON_GPU, gpu)
        if key == before:
            raise StageError(
                f"stage {key} was not done by {deployment}, though it ended well",
                hint="Do the workers of both pools see the same artifact root? Set run.root to a shared folder or s3://.",
            )
        current_reporter().message(f"{key}: to {deployment}")
        say_if_unserved(deployment)
        parameters: dict[str, Any] = {"profile": profile, "run": resolved.run.name, "config": given, "only": stages}
        done = cast(FlowRun, run_deployment(name=deployment, parameters=parameters, timeout=None))
        if done.state is None or not done.state.is_completed():
            state = done.state.name if done.state else "no state"
            raise StageError(
                f"stage {key}: flow run {done.name} of {deployment} ended {state}, expected Completed",
                hint="Its log says why. Start this again to go on.",
            )
        before = key


def say_if_unserved(deployment: str) -> None:
    """Warn of a pool without a worker: one may still come, so waiting is no error."""
    with get_client(sync_client=True) as client:
        pool = client.read_deployment_by_name(deployment).work_pool_name
        note = no_worker(client, pool) if pool else None
    if note:
        current_reporter().warning(note)


def next_stage(config: Config) -> StageKey | None:
    """The first stage that is not committed; None if there is none, or a guard ended the run.

    Raises:
        ArtifactError: A manifest is broken.
    """
    paths = look(run_paths(config.run.root, config.run.name))
    keys = keys_of(config)
    history = committed_manifests(paths, keys)
    if find_stop(config.guards, paths, history, config.run.iterations) is not None:
        return None
    return next((key for key in keys if key not in history), None)
