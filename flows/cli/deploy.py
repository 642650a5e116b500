"""``knowrl deploy``: pools, automation and deployments on a Prefect server."""

from typing import Annotated

import typer

from flows.cli.console import err, printable
from flows.cli.environment import prepare_environment


def deploy(
    slots: Annotated[int, typer.Option(min=1, help="Flow runs at a time in work pool knowrl (CPUs).")] = 1,
    gpu_slots: Annotated[
        int, typer.Option(min=1, help="Flow runs at a time in work pool knowrl-gpu: one a device.")
    ] = 1,
    dead_after: Annotated[
        int, typer.Option(min=60, help="Seconds without a heartbeat after which a flow run has crashed.")
    ] = 90,
) -> None:
    """Set up the Prefect server that PREFECT_API_URL names, so that `prefect deployment run knowrl/train` works."""
    prepare_environment()
    from flows.deployment import set_up

    for line in set_up(slots, gpu_slots, dead_after):
        err.print(printable(line), soft_wrap=True)
