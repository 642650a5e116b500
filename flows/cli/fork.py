"""``knowrl fork``: a new run from any point of another."""

from typing import Annotated

import typer

from flows.cli.console import err, printable
from flows.cli.machine import confirmed
from flows.cli.options import RunArgument, SetOption, locate, resume_command
from flows.cli.run import go
from knowrl_core.config import anchored
from knowrl_core.storage.layout import StageKey
from knowrl_core.storage.roots import run_paths


def fork(
    old: RunArgument,
    new: Annotated[str, typer.Argument(help="Name of the new run; it is made beside the other one.")],
    at: Annotated[
        str, typer.Option("--at", metavar="ITERATION/STAGE", help="First stage that is done anew, such as 17/update.")
    ],
    set_: SetOption = None,
    start: Annotated[bool, typer.Option("--run/--no-run", help="Go on with the new run at once.")] = True,
) -> None:
    """Start a run from any point of another one, sharing its past without a copy."""
    point = StageKey.parse(at)
    paths = locate(old, set_)
    config = anchored(confirmed(paths, [*(set_ or []), f"run.name={new}"], at=point))
    from tasks.fork import fork_run
    from tasks.prepare import prepare

    how = fork_run(paths, point, config, prepare(config).pins)
    made = run_paths(paths.location, config.run.name)
    err.print(printable(f"run {new} was forked from {paths.name} at {point}; it {how}"), soft_wrap=True)
    if start:
        go(config)
    else:
        err.print(printable(f"Go on with: {resume_command(made)}"), soft_wrap=True)
