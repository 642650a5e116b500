"""``knowrl run`` and ``knowrl resume``."""

import os
import shlex
import signal
from types import FrameType
from typing import Annotated

import typer

from flows.cli.console import TerminalReporter, err, iterations_table, out, printable
from flows.cli.environment import prepare_environment
from flows.cli.options import ConfigOption, RunArgument, SetOption, locate, stored_config
from knowrl_core.config import DEFAULT_PROFILE, Config, load_config
from knowrl_core.errors import KnowrlError, StageError
from knowrl_core.report import best_iteration, iteration_rows
from knowrl_core.storage.layout import RunPaths, stage_keys
from knowrl_core.storage.verify import committed_manifests

RepairOption = Annotated[bool, typer.Option("--repair", help="Do damaged stages, and what follows from them, again.")]


def run(config: ConfigOption = DEFAULT_PROFILE, set_: SetOption = None, repair: RepairOption = False) -> None:
    """Start a run, or go on with it if a run of that name exists."""
    _go(load_config(config, set_ or []), profile=config, repair=repair)


def resume(run: RunArgument, set_: SetOption = None, repair: RepairOption = False) -> None:
    """Go on with a run at its first stage that is not committed."""
    _go(stored_config(locate(run, set_), set_), profile=DEFAULT_PROFILE, repair=repair)


def _go(config: Config, *, profile: str, repair: bool) -> None:
    prepare_environment()
    signal.signal(signal.SIGTERM, _interrupt)
    from tasks.open_run import check_folder
    from tasks.prepare import prepare, root_folder

    paths = RunPaths(root_folder(config), config.run.name)
    check_folder(paths)
    prepare(config)
    from flows.train import train
    from tasks.progress import terminal
    from tasks.tracking import tracking_uri

    err.print(f"run [bold]{printable(config.run.name)}[/] in {printable(str(paths.folder))}", soft_wrap=True)
    try:
        with TerminalReporter() as reporter, terminal(reporter):
            train(profile=profile, config=Config.model_validate(config.model_dump()), repair=repair)
    except KeyboardInterrupt:
        err.print(
            f"\ninterrupted; what is committed stands. Go on with: [bold]{_resume_command(paths)}[/]", soft_wrap=True
        )
        raise
    except KnowrlError as error:
        if error.exit_code == 1:
            raise type(error)(
                error.message, hint=f"{error.hint}\nGo on with: {_resume_command(paths)}".strip()
            ) from error
        raise
    except Exception as error:
        if os.environ.get("KNOWRL_TRACEBACK"):
            raise
        raise StageError(
            f"{type(error).__name__}: {error}"[:4_000],
            hint=f"KNOWRL_TRACEBACK=1 shows where. Go on with: {_resume_command(paths)}",
        ) from error
    _show(paths, config, tracking_uri(config, paths.root))


def _show(paths: RunPaths, config: Config, uri: str) -> None:
    history = committed_manifests(paths, stage_keys(config.run.iterations))
    out.print(iterations_table(iteration_rows(history), f"run {config.run.name}"))
    best = best_iteration(history)
    if best is not None:
        out.print(f"best balanced accuracy on the probe: iteration {best}")
    out.print(f"artifacts:  {printable(str(paths.folder))}", soft_wrap=True)
    if config.tracking.enabled:
        out.print(f"MLflow UI:  mlflow ui --backend-store-uri {printable(shlex.quote(uri))}", soft_wrap=True)
    out.print("Prefect UI: prefect server start   (then http://127.0.0.1:4200)", soft_wrap=True)


def _resume_command(paths: RunPaths) -> str:
    return f"knowrl resume {shlex.quote(paths.name)} --set run.root={shlex.quote(str(paths.root))}"


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
