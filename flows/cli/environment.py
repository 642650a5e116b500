"""Quiet libraries, and no server left behind by an earlier run that was killed."""

import os
import signal

import psutil

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
    end_orphaned_servers()
    me = psutil.Process()
    os.environ[OWNER] = f"{me.pid}:{me.create_time():.2f}"


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
