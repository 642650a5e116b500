"""The report of a run at its end: a file in its folder, and an artifact of its parent run in MLflow."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from knowrl_core.errors import KnowrlError
from knowrl_core.report.verdict import Verdict
from knowrl_core.report.write import make_report, write_report
from tasks.context import RunContext

REPORT: Final = "report.html"


@dataclass(frozen=True, slots=True)
class Written:
    """A report that was written.

    Attributes:
        place: The file, as people should see it.
        link: Its address in MLflow's UI, where that is a server.
        verdict: What it says.
    """

    place: str
    link: str | None
    verdict: Verdict


def report_run(ctx: RunContext) -> Written | None:
    """Write a run's report; a failure is a warning, since the run is done.

    Args:
        ctx: The run, at its end.
    """
    state = "stopped" if ctx.stopped else "completed"
    try:
        return _write(ctx, ctx.paths.folder / REPORT, state)
    except Exception as error:
        what = error.message if isinstance(error, KnowrlError) else f"{type(error).__name__}: {error}"
        ctx.reporter.warning(
            f"the report could not be written: {what[:500]}. The run is done; try `knowrl report {ctx.paths.name}`"
        )
        return None


def _write(ctx: RunContext, file: Path, state: str) -> Written:
    report = make_report([ctx.paths], state=state)
    write_report(report, file)
    ctx.paths.publish(file)
    link = ctx.tracker.attach(file)
    return Written(f"{ctx.paths.shown}/{REPORT}", link, report.runs[0].verdict)
