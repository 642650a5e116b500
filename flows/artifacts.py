"""What the Prefect UI shows of a run beside its tasks: a table of iterations."""

from prefect.artifacts import create_table_artifact

from knowrl_core.guards import Stop
from knowrl_core.report import iteration_rows
from tasks.context import RunContext
from tasks.summary import COLUMNS, cells


def publish(ctx: RunContext, stop: Stop | None) -> None:
    """Store the table of iterations as a Prefect artifact; a failure is a warning, since the run itself is done.

    Args:
        ctx: The run.
        stop: Why a guard ended it, if one did.
    """
    end = f". Stopped after iteration {stop.iteration}: {stop.reason}" if stop else ""
    rows = [dict(zip((title for title, _ in COLUMNS), cells(row), strict=True)) for row in iteration_rows(ctx.history)]
    name = "".join(char if char.isalnum() else "-" for char in ctx.config.run.name.lower())
    try:
        create_table_artifact(
            rows, key=f"knowrl-{name.strip('-')}", description=f"Iterations of run {ctx.config.run.name}{end}"
        )
    except Exception as error:
        ctx.reporter.warning(f"Prefect does not take the table of iterations: {type(error).__name__}: {error}")
