"""Attempts that were killed, in Prefect: their flow runs would stay Running for ever."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from tasks.context import RunContext


def mark_crashed(ctx: RunContext) -> None:
    """Set the flow runs of killed attempts to Crashed, as far as this Prefect server knows them.

    Who holds the run's lock knows that they are dead. Prefect would find out only through heartbeats, and till then
    count them against a concurrency limit. A failure is a warning: nothing of the run depends on it.
    """
    own = ctx.run_file.attempts[-1].prefect_flow_run  # a flow run that is tried again is alive
    killed = (attempt.prefect_flow_run for attempt in ctx.run_file.attempts if attempt.outcome == "killed")
    dead = sorted({UUID(name) for name in killed if name and name != own})
    if not dead:
        return
    try:
        with get_client(sync_client=True) as client:
            for number in dead:
                try:
                    found = client.read_flow_run(number)
                except ObjectNotFound:
                    continue
                if found.state is not None and found.state.is_running():
                    message = f"The process of this attempt at run {ctx.config.run.name} ended without a word."
                    client.set_flow_run_state(found.id, Crashed(message=message), force=True)
    except Exception as error:
        ctx.reporter.warning(f"Prefect still shows killed attempts as running: {type(error).__name__}: {error}")
