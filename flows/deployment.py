"""What a Prefect server needs before the deployments of ``prefect.yaml`` can run: pools, their slots, an automation."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType, WorkerStatus
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker

from knowrl_core.errors import InputError, StageError
from knowrl_core.resources import shipped

CPU_POOL: Final = "knowrl"
GPU_POOL: Final = "knowrl-gpu"
CONTROL_POOL: Final = "knowrl-control"
CONTROL_SLOTS: Final = 100
AUTOMATION: Final = "KnowRL: a flow run whose process is gone has crashed"
_DESCRIPTIONS = {
    CPU_POOL: "KnowRL on CPUs. A slot is one flow run at a time.",
    GPU_POOL: "KnowRL on GPUs. A slot is one device; further flow runs wait.",
    CONTROL_POOL: "Flow runs that only wait for others (knowrl/relay).",
}
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def set_up(slots: int, gpu_slots: int, dead_after: int) -> list[str]:
    """Make or update the pools, the automation and the deployments; the same call twice changes nothing.

    Args:
        slots: Flow runs at a time in the CPU pool.
        gpu_slots: Flow runs at a time in the GPU pool.
        dead_after: Seconds without a heartbeat after which a flow run has crashed.

    Returns:
        What was done, in words.

    Raises:
        InputError: The settings name no server, or it cannot be reached or refuses us.
        StageError: Prefect does not take the deployments.
    """
    url = get_current_settings().api.url
    if not url:
        raise InputError(
            "got no Prefect server, expected its address in PREFECT_API_URL",
            hint="Start one: `prefect server start`, then `prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api`.",
        )
    try:
        with get_client(sync_client=True) as client:
            done = [
                _pool(client, CPU_POOL, slots),
                _pool(client, GPU_POOL, gpu_slots),
                _pool(client, CONTROL_POOL, CONTROL_SLOTS),
                _automation(client, dead_after),
            ]
            unserved = [note for name in _DESCRIPTIONS if (note := no_worker(client, name))]
    except httpx.HTTPError as error:
        raise InputError(
            f"Prefect server {url}: {type(error).__name__}: {error}"[:2_000],
            hint="Is it running? If it wants a password: PREFECT_API_AUTH_STRING=user:password.",
        ) from error
    return [*done, *_deployments(), *unserved]


def process_template() -> dict[str, Any]:
    """The job template of our pools: a flow run brings no command, environment or folder of its own.

    Prefect's default one has these as variables, with which whoever may start a flow run could set the environment that
    says what its parameters may name.
    """
    template = ProcessWorker.get_default_base_job_template()
    name = {"name": template["variables"]["properties"]["name"]}
    return {
        # No `env`: Prefect would add a flow run's own to one that is there.
        "job_configuration": {"name": "{{ name }}", "stream_output": True},
        "variables": {"type": "object", "properties": name, "additionalProperties": False},
    }


def _pool(client: SyncPrefectClient, name: str, slots: int) -> str:
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(
                name=name,
                description=_DESCRIPTIONS[name],
                type=ProcessWorker.type,
                base_job_template=process_template(),
                concurrency_limit=slots,
            )
        )
        return f"work pool {name} was made, with {slots} slots"
    if pool.base_job_template == ProcessWorker.get_default_base_job_template():
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=process_template()))
    if pool.concurrency_limit != slots:
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=slots))
        return f"work pool {name} has {slots} slots now (had {pool.concurrency_limit})"
    return f"work pool {name} has {slots} slots"


def no_worker(client: SyncPrefectClient, name: str) -> str | None:
    """That no living worker serves a pool, with the command that starts one; None where there is one.

    Raises:
        ObjectNotFound: There is no such pool.
    """
    pool = client.read_work_pool(name)
    if any(worker.status == WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(name)):
        return None
    return (
        f"work pool {name} has no live worker; its flow runs wait until there is one: "
        f"prefect worker start --pool {name} --type {pool.type}"
    )


def _automation(client: SyncPrefectClient, dead_after: int) -> str:
    """Flow runs that stop to report heartbeats become Crashed, so that they do not hold a slot for ever.

    Prefect sees by itself when a flow run's process dies while its worker lives. This is for a worker, or a machine,
    that died with it.
    """
    beat = "prefect.flow-run.heartbeat"
    wanted = AutomationCore(
        name=AUTOMATION,
        description="Made by `knowrl deploy`. Workers must have PREFECT_FLOWS_HEARTBEAT_FREQUENCY set, such as to 30.",
        trigger=EventTrigger(
            after={beat},
            expect={beat, *(f"prefect.flow-run.{state}" for state in _ENDS)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=dead_after),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"No heartbeat for {dead_after} s: its process is gone. Start it again with the same run name.",
            )
        ],
    )
    known = client.read_automations_by_name(AUTOMATION)
    if known:
        client.update_automation(known[0].id, wanted)
    else:
        client.create_automation(wanted)
    return f"automation {'updated' if known else 'made'}: without a heartbeat for {dead_after} s a flow run has crashed"


def _deployments() -> list[str]:
    file = shipped("prefect.yaml")
    if not file.is_file():
        raise InputError(
            f"{file}: no such file", hint="Deploy from a clone: flows run from its folder, which the server remembers."
        )
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", file.name]
    done = subprocess.run(  # noqa: S603 - this interpreter, and words of our own
        command, cwd=Path(file).parent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StageError(f"`prefect deploy` ended with {done.returncode}:\n{(done.stderr or done.stdout)[-3_000:]}")
    return [
        " ".join(line.strip(" │").split())
        for line in done.stdout.splitlines()
        if "successfully created" in line or "successfully updated" in line
    ]
