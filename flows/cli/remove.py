"""``knowrl remove``: a run's directory, for good."""

import shutil
from typing import Annotated

import typer

from flows.cli.console import err, printable
from flows.cli.options import RunArgument, SetOption, locate
from knowrl_core.errors import InputError
from knowrl_core.storage.roots import writer_of
from knowrl_core.storage.run_file import RunFile


def remove(
    run: RunArgument,
    set_: SetOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also if other runs were forked from it; they keep what they share.")
    ] = False,
) -> None:
    """Remove a run's artifacts. What MLflow knows of it stays there."""
    from tasks.fork import forks_of

    paths = locate(run, set_)
    remains = paths.remote is not None and paths.remote.has_remains()
    if not remains:
        RunFile.read(paths)
    with writer_of(paths):
        forks = [] if remains else forks_of(paths)
        if forks and not force:
            raise InputError(
                f"run {paths.name!r} is the past of {', '.join(forks)}, expected a run that no other was forked from",
                hint="Remove the forks first, or use --force: they keep the files that they share, and go on.",
            )
        if not yes and not typer.confirm(f"Remove {paths.shown}?", err=True):
            raise typer.Exit(1)
        if paths.remote is not None:
            paths.remote.remove()
        gone = paths.folder.with_name(f".{paths.name}.removed")
        shutil.rmtree(gone, ignore_errors=True)
        paths.folder.rename(gone)  # at once: no half-removed run is left behind
    if gone.is_symlink():  # a run may lie on another disk, and be linked to
        shutil.rmtree(gone.resolve())
        gone.unlink()
    else:
        shutil.rmtree(gone)
    err.print(printable(f"removed {paths.shown}"), soft_wrap=True)
