"""``knowrl report``: one HTML file about a run, or about several side by side."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import err, out, printable
from flows.cli.environment import prepare_environment
from flows.cli.machine import confirmed
from flows.cli.options import JsonOption, SetOption, locate
from knowrl_core.errors import InputError, KnowrlError
from knowrl_core.storage.layout import RunPaths

if TYPE_CHECKING:
    from knowrl_core.report.gather import Report


def report(
    runs: Annotated[list[str], typer.Argument(help="Names of runs, or paths of their folders; several are compared.")],
    file: Annotated[
        Path | None, typer.Option("--out", help="The file; without it NAME-report.html in the current folder.")
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Write what runs came to as one HTML file: verdict, charts, flipped examples, differences, how to reproduce."""
    from knowrl_core.report.write import make_report, write_report

    found = [locate(run, set_) for run in runs]
    if len({paths.shown for paths in found}) < len(found):
        raise InputError(f"got {', '.join(runs)}, expected each run once")
    made = make_report(found)
    if json_:
        typer.echo(json.dumps(made.as_json(), indent=2))
        if file is None:
            return
    target = file or Path(f"{'-vs-'.join(paths.name for paths in found)[:120]}-report.html")
    write_report(made, target)
    _log(found, target, set_)
    if not json_:
        _say(made, target)


def _say(made: "Report", target: Path) -> None:
    for run in made.runs:
        out.print(printable(f"{run.name}: {run.verdict.headline}. {run.verdict.sentences[0]}"), soft_wrap=True)
    out.print(printable(f"report: {target}"), soft_wrap=True)


def _log(runs: Sequence[RunPaths], target: Path, set_: list[str] | None) -> None:
    """Log the report to each run's MLflow store; a failure is a warning, since the report is there."""
    for paths in runs:
        try:
            config = confirmed(paths, set_)
        except KnowrlError as error:
            err.print(f"[yellow]warning:[/] not logged to MLflow: {printable(error.message)}", soft_wrap=True)
            continue
        if config.tracking.enabled:
            prepare_environment()
            from tasks.tracked_report import attach

            problem = attach(config, paths, target)
            if problem:
                err.print(f"[yellow]warning:[/] {printable(problem)}", soft_wrap=True)
