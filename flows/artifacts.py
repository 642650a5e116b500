"""What the Prefect UI shows beside what a run keeps up to date: tables of a study or evaluation, and the report."""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.artifact_keys import artifact_key
from knowrl_core.report.markdown import code, plain
from tasks.context import RunContext
from tasks.reporter import Reporter
from tasks.run_report import Written, report_run


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


def publish_report(ctx: RunContext) -> None:
    """Write the run's report and store what it says, and where it is; a failure is a warning."""
    written = report_run(ctx)
    if written is None:
        return
    ctx.reporter.message(f"report: {written.place}")
    try:
        create_markdown_artifact(
            _markdown(written), key=artifact_key(ctx.config.run.name, "report"), description="What the run came to"
        )
    except Exception as error:
        ctx.reporter.warning(f"Prefect does not take the report's link: {type(error).__name__}: {error}")


def _markdown(written: Written) -> str:
    lines = [
        f"**{plain(written.verdict.headline)}**",
        "",
        *(f"- {plain(text)}" for text in written.verdict.sentences),
        "",
    ]
    if written.link:
        lines += [f"[Report in MLflow](<{written.link}>)", ""]
    return "\n".join([*lines, f"Report: {code(written.place)}"])
