"""What the Prefect UI shows of a run beside its tasks: a table of iterations."""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_table_artifact

from knowrl_core.guards import Stop
from tasks.context import RunContext
from tasks.reporter import Reporter
from tasks.summary import titled_rows


def publish(ctx: RunContext, stop: Stop | None) -> None:
    """Store the table of iterations.

    Args:
        ctx: The run.
        stop: Why a guard ended it, if one did.
    """
    end = f". Stopped after iteration {stop.iteration}: {stop.reason}" if stop else ""
    name = "".join(char if char.isalnum() else "-" for char in ctx.config.run.name.lower())
    description = f"Iterations of run {ctx.config.run.name}{end}"
    publish_table(titled_rows(ctx.history), f"knowrl-{name.strip('-')}", description, ctx.reporter)


def publish_table(rows: Sequence[dict[str, Any]], key: str, description: str, reporter: Reporter) -> None:
    """Store a table as a Prefect artifact; a failure is a warning, since what it shows is done.

    Args:
        rows: Its rows, by column.
        key: Lower-case letters, digits and dashes; a table of the same key is a new version.
        description: Shown above it.
        reporter: Told of a failure.
    """
    try:
        create_table_artifact(list(rows), key=key, description=description)
    except Exception as error:
        reporter.warning(f"Prefect does not take the table {key}: {type(error).__name__}: {error}")
