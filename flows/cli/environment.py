"""Quiet libraries, and no server left behind by an earlier run that was killed."""

import os
import signal
import threading

import psutil

from flows.remote import STARTED_BY_A_WORKER
from knowrl_core.errors import StageError

OWNER = "KNOWRL_OWNER"
"""Environment variable that Prefect's ephemeral server inherits from us: process id and start time of its owner."""

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the API gets every line; the terminal has our reporter
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # a busy machine needs longer than the default 20
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare_environment() -> None:
    """Set what is not set yet; must come before Prefect and MLflow are imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # A command that somebody's flow calls is a command, whatever flow run that one is.
    os.environ.pop(STARTED_BY_A_WORKER, None)
    end_orphaned_servers()
    me = psutil.Process()
    os.environ[OWNER] = f"{me.pid}:{me.create_time():.2f}"


def start_server() -> None:
    """Start Prefect's ephemeral server, unless the settings name a server; it is stopped at exit.

    Prefect would start it with its first request. Started here it does not get the terminal's Control-C: on that it
    would leave at once, and the run could not tell it any more that it was interrupted. Signals that the starting
    thread blocks stay blocked in the server; it ends by SIGTERM.
    """
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url or not settings.server.ephemeral.enabled:
        return
    from prefect.server.api.server import SubprocessASGIServer  # two seconds, for those who need it

    problems: list[Exception] = []

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start()
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=start, name="prefect-server", daemon=True)
    thread.start()
    thread.join()
    if problems:
        raise StageError(
            f"Prefect's ephemeral server does not start: {problems[0]}",
            hint="Try again, or start one yourself: `prefect server start`, and set PREFECT_API_URL.",
        ) from problems[0]


def end_orphaned_servers() -> int:
    """End ephemeral Prefect servers whose owner, an earlier ``knowrl``, is gone; returns how many.

    A killed process cannot stop its server. Only servers that carry our mark are touched.
    """
    ended = 0
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("PREFECT__SERVER_EPHEMERAL") != "1" or OWNER not in environment:
                continue
            if not _alive(environment[OWNER]):
                process.send_signal(signal.SIGTERM)
                ended += 1
        except (psutil.Error, ValueError, OSError):  # gone meanwhile, or another user's
            continue
    return ended


def _alive(owner: str) -> bool:
    pid, _, started = owner.partition(":")
    try:
        process = psutil.Process(int(pid))
        return abs(process.create_time() - float(started)) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
