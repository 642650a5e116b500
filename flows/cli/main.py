"""Entry point of ``knowrl``: the commands, and how an error ends them."""

import os
import sys
import traceback
from typing import Annotated

import typer

from flows.cli import deploy, doctor, evaluate, fork, judge, models, remove, report, run, seeds, status, study, verify
from flows.cli.console import print_error
from flows.cli.options import EXIT_INTERRUPTED
from knowrl_core.errors import KnowrlError
from knowrl_core.version import code_version

app = typer.Typer(
    name="knowrl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a stage failed, 2 wrong input (nothing was created), 3 the run is held by another "
    "process, 4 a damaged artifact, 130 interrupted. "
    "`status --watch`: 0 the run completed or a guard stopped it, 1 it did not.",
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"knowrl {code_version()}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Teach language models to know what they can and cannot do."""


app.command("run")(run.run)
app.command("resume")(run.resume)
app.command("fork")(fork.fork)
app.command("verify")(verify.verify)
app.command("study")(study.study)
app.command("deploy")(deploy.deploy)
app.command("remove")(remove.remove)
app.command("status")(status.status)
app.command("report")(report.report)
app.command("evaluate")(evaluate.evaluate)
app.command("judge")(judge.judge)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(seeds.app, name="seeds")


def main() -> None:
    """Run a command; errors of ours become a short message and an exit code."""
    try:
        app()
    except KnowrlError as error:
        if os.environ.get("KNOWRL_TRACEBACK"):
            traceback.print_exc()
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
