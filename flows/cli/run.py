"""``knowrl run`` and ``knowrl resume``."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

from flows.cli.console import err, is_live, iterations_table, out, printable, waiting
from flows.cli.environment import prepare_environment, start_server
from flows.cli.guarding import stopped
from flows.cli.live import SHOW_CURSOR, run_reporter
from flows.cli.machine import confirmed, named
from flows.cli.options import (
    EXIT_INTERRUPTED,
    ConfigOption,
    RunArgument,
    SetOption,
    command,
    locate,
    resume_command,
)
from knowrl_core.config import DEFAULT_PROFILE, Config, anchored, load_config, redacted
from knowrl_core.errors import KnowrlError, StageError
from knowrl_core.guards import find_stop
from knowrl_core.report import best_iteration, iteration_rows
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.roots import run_paths
from knowrl_core.storage.tables import REPAIR_HINT
from knowrl_core.storage.verify import committed_manifests
from tasks.starting import keys_of

RepairOption = Annotated[bool, typer.Option("--repair", help="Do damaged stages, and what follows from them, again.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show neither the live view nor a line for each stage, only warnings.")
]


def run(
    config: ConfigOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    repair: RepairOption = False,
    quiet: QuietOption = False,
) -> None:
    """Start a run, or go on with it if a run of that name exists."""
    go(named(load_config(config, set_ or [])), repair=repair, quiet=quiet)


def resume(
    run: RunArgument,
    *,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="Take this profile or YAML file instead of the run's own config."),
    ] = None,
    set_: SetOption = None,
    repair: RepairOption = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ITERATION/STAGE",
            help="Go back to this stage: it and what follows are removed and done again (`knowrl fork` keeps both).",
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Go on with a run at its first stage that is not committed, or at an earlier one."""
    if start is not None:
        StageKey.parse(start)
    paths = locate(run, set_, config or DEFAULT_PROFILE)
    if config is None:
        go(confirmed(paths, set_), repair=repair, start=start, quiet=quiet)
    else:
        place = [f"run.root={paths.location}", f"run.name={paths.name}"]
        go(named(load_config(config, [*(set_ or []), *place])), repair=repair, start=start, quiet=quiet)


def go(config: Config, *, repair: bool = False, start: str | None = None, quiet: bool = False) -> None:
    """Start or go on with a run in this process, and show how it ended.

    Args:
        config: Its config.
        repair: Do damaged stages again.
        start: A stage to go back to.
        quiet: Show warnings and the end only.
    """
    prepare_environment()
    config = anchored(config)
    from tasks.prepare import check_folder, prepare

    paths = run_paths(config.run.root, config.run.name)
    check_folder(paths)
    prepare(config)
    # All that the user gave is checked; Prefect is slow to import and comes only now.
    from flows.train import train
    from tasks.progress import terminal
    from tasks.tracking import tracking_uri

    err.print(f"run [bold]{printable(config.run.name)}[/] in {printable(paths.shown)}", soft_wrap=True)
    with (
        ended_in_order(lambda error: _explain(error, paths), lambda: _what_stands(paths)),
        run_reporter(quiet=quiet) as reporter,
        terminal(reporter),
    ):
        train(config=Config.model_validate(config.model_dump()), repair=repair, from_stage=start)
    _show(paths, config, redacted(tracking_uri(config, paths.root)))


@contextmanager
def ended_in_order(explain: Callable[[Exception], Exception], what_stands: Callable[[], str]) -> Iterator[None]:
    """Give a flow its server, and its end a message.

    Args:
        explain: Makes of a failure what the user reads.
        what_stands: Says after an interruption what there is, and how to go on.

    Raises:
        KeyboardInterrupt: It was interrupted; that has been said.
    """
    from tasks.interruption import is_interruption

    _catch_signals()
    try:
        with waiting("starting Prefect"):
            start_server()
        yield
    except BaseException as error:
        if is_interruption(error):
            err.print(f"\ninterrupted; {what_stands()}", soft_wrap=True)
            raise KeyboardInterrupt from error
        explained = explain(error) if isinstance(error, Exception) else error
        if explained is error:
            raise
        raise explained from error


def _what_stands(paths: RunPaths) -> str:
    if not paths.run_file.exists():
        return "the run had not begun"
    return f"what is committed stands. Go on with: [bold]{printable(resume_command(paths))}[/]"


def _explain(error: Exception, paths: RunPaths) -> Exception:
    """What ended the run, with the command that goes on; as it is where there is nothing to add."""
    if isinstance(error, KnowrlError):
        if error.exit_code == 1:
            return type(error)(error.message, hint=f"{error.hint}\nGo on with: {resume_command(paths)}".strip())
        if error.hint == REPAIR_HINT:
            return type(error)(error.message, hint=error.hint.replace("knowrl resume RUN", resume_command(paths)))
        return error
    return as_stage_error(error, resume_command(paths))


def as_stage_error(error: Exception, go_on: str) -> Exception:
    """An error of a library as one of ours, with the command that goes on."""
    if os.environ.get("KNOWRL_TRACEBACK"):
        return error
    return StageError(
        f"{type(error).__name__}: {error}"[:4_000], hint=f"KNOWRL_TRACEBACK=1 shows where. Go on with: {go_on}"
    )


def _show(paths: RunPaths, config: Config, uri: str) -> None:
    history = committed_manifests(paths, keys_of(config))
    out.print(iterations_table(iteration_rows(history), f"run {config.run.name}"))
    best = best_iteration(history)
    if best is not None:
        out.print(f"best balanced accuracy on the probe: iteration {best}")
    stop = find_stop(config.guards, paths, history, config.run.iterations)
    if stop is not None:
        out.print(printable(stopped(stop, paths)), soft_wrap=True)
    out.print(f"artifacts:  {printable(paths.shown)}", soft_wrap=True)
    if config.tracking.enabled:
        ui = f"{command('mlflow')} ui --backend-store-uri {shlex.quote(uri)}   (http://127.0.0.1:5000"
        where = f"{uri}   (" if uri.startswith(("http://", "https://")) else f"{ui}, "
        out.print(printable(f"MLflow UI:  {where}Model training; Views has KnowRL iterations)"), soft_wrap=True)
    out.print(printable(f"Prefect UI: {command('prefect')} server start   (http://127.0.0.1:4200)"), soft_wrap=True)


def _catch_signals() -> None:
    """Let SIGINT and SIGTERM end the run in order; a third one ends it at once."""
    came = 0

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal came
        came += 1
        if came == 1:
            raise KeyboardInterrupt
        if came > 2:
            if is_live(err, sys.__stderr__ or sys.stderr):
                os.write(2, SHOW_CURSOR)
            os._exit(EXIT_INTERRUPTED)  # as safe as kill -9; the model worker ends with this process
        os.write(2, b"\nstopping; once more ends it at once\n")  # a handler may not print through Rich

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
