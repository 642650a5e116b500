"""When a run is logged to MLflow, and what happens when MLflow is not there.

Every number comes from a committed manifest, so whatever is missing can be logged later: after an outage, or at the
next start.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from knowrl_core.config import Config, redacted
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.run_file import RunFile
from tasks.reporter import Reporter
from tasks.system_metrics import Point, SystemMetrics

if TYPE_CHECKING:
    from tasks.mlflow_log import MlflowLog

RETRY_SECONDS = 60.0
RETRY_SHARE = 0.05
"""After a failure MLflow is left alone for this many seconds, and longer if trying took long: at most this share of a
run's time goes into trying."""

_ENVIRONMENT = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # MLflow's defaults would hold a run for minutes when its server is down; we come back to it anyway.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}

_STATUS = {"completed": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


def tracking_uri(config: Config, root: Path) -> str:
    """The MLflow store: the config's, ``MLFLOW_TRACKING_URI``, or a SQLite file in the artifact root."""
    if config.tracking.uri != "auto":
        return config.tracking.uri
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


def set_environment() -> None:
    """Keep MLflow quiet and quick to give up; before it is imported, and only what is not set yet."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class Tracker:
    """Logs one run. A failure of MLflow is reported once and never fails a stage; what is missing is logged later.

    Args:
        config: The run's config.
        paths: The run.
        run_file: Its identity.
        reporter: Told of failures.
    """

    def __init__(self, config: Config, paths: RunPaths, run_file: RunFile, reporter: Reporter) -> None:
        self._config, self._paths, self._run_file, self._reporter = config, paths, run_file, reporter
        self.uri = tracking_uri(config, paths.root)
        self._history: dict[StageKey, Manifest] = {}
        self._log: MlflowLog | None = None
        self._failing = False
        self._next_try = 0.0
        seconds = config.tracking.system_metrics_seconds if config.tracking.enabled else 0.0
        self._system = SystemMetrics(seconds, paths.root, begun=run_file.created) if seconds else None

    def open(self, history: Mapping[StageKey, Manifest]) -> None:
        """Find or make the run in MLflow, and log what is committed but not logged yet."""
        self._history = dict(history)
        if self._system is not None:
            self._system.start(self._log_system)
        self._sync()

    def log_stage(self, key: StageKey, manifest: Manifest) -> None:
        """Log a stage that has just been committed, and what is missing from before."""
        self._history[key] = manifest
        if time.monotonic() >= self._next_try:
            self._sync()

    def attach(self, file: Path) -> str | None:
        """Log a file to the parent run, after what is missing.

        Returns:
            Its address, where the store is a server with a UI; None also if MLflow does not take it.
        """
        self._sync()
        if self._log is None:
            return None
        try:
            place = self._log.attach(file)
        except Exception as error:
            self._reporter.warning(
                f"MLflow ({redacted(self.uri)}) does not take {file.name}: {redacted(str(error)[:200])}"
            )
            return None
        return f"{redacted(self.uri).rstrip('/')}{place}" if self.uri.startswith("http") else None

    def close(self, outcome: str) -> None:
        """Log what is still missing, and say how the attempt ended."""
        if self._system is not None:
            self._system.stop()
        self._sync(status=_STATUS[outcome])

    def _log_system(self, points: list[Point]) -> None:
        """Log points while a stage runs; called by another thread, which comes again if it fails."""
        log = self._log
        if log is None:
            raise ConnectionError("MLflow is not there")
        log.log_system(points)

    def _sync(self, status: str | None = None) -> None:
        if not self._config.tracking.enabled:
            return
        began = time.monotonic()
        try:
            if self._log is None:
                self._log = self._connect()
            self._log.log(self._history)
            if self._system is not None:
                self._system.hand_over(self._log.log_system)
            if status is not None:
                self._log.end(status, self._history)
        except Exception as error:
            self._log = None
            now = time.monotonic()
            self._next_try = now + max(RETRY_SECONDS, (now - began) / RETRY_SHARE)
            if not self._failing:
                self._reporter.warning(
                    f"MLflow ({redacted(self.uri)}) does not take the log: {type(error).__name__}: "
                    f"{redacted(str(error)[:200])}. The run "
                    "goes on; what is missing is logged when MLflow is back, or at the next `knowrl resume`."
                )
            self._failing = True
            return
        if self._failing:
            self._reporter.message(f"MLflow ({redacted(self.uri)}) takes the log again; nothing is missing in it")
        self._failing = False

    def _connect(self) -> "MlflowLog":
        set_environment()
        from tasks.mlflow_log import MlflowLog  # MLflow takes a second to load, and a failure of that is one more

        return MlflowLog(self.uri, self._config, self._paths, self._run_file)
