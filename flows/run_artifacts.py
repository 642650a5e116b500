"""What the Prefect UI shows of a run beside its tasks: how far it is, its stages, and its iterations.

Artifacts are made and updated by a thread, so that no stage waits for a server that is slow or away, and nothing of the
run depends on them.
"""

import json
import threading
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, Self, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from flows.artifact_keys import artifact_key
from knowrl_core.guards import Stop
from knowrl_core.report import Standing, iteration_rows
from knowrl_core.report.scale import rough_duration
from knowrl_core.storage.layout import StageKey
from knowrl_core.storage.manifest import Manifest
from tasks.reporter import MeteredReporter, OpenedRun, Reporter
from tasks.summary import counts, key_metrics, titled_rows

EVERY: Final = 15.0
"""Seconds between two updates while a stage goes on; its beginning and end are told at once."""
PAUSE: Final = 60.0
"""Seconds without an attempt after one that failed."""
LAST: Final = 10.0
"""Seconds that the end of a run waits for the last update."""


class RunArtifacts(MeteredReporter):
    """Keeps the artifacts of a run up to date, as long as the context lasts; tells another reporter everything.

    Args:
        also: The other one.
    """

    def __init__(self, also: Reporter) -> None:
        super().__init__(also)
        self.stop: Stop | None = None
        """Why a guard ended the run, if one did."""
        self._run: OpenedRun | None = None
        self._history: dict[StageKey, Manifest] = {}
        self._failed: StageKey | None = None
        self._ids: dict[str, UUID] = {}
        self._sent: dict[str, object] = {}
        self._changed, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._warned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(LAST)

    def opened(self, run: OpenedRun) -> None:
        """Begin."""
        super().opened(run)
        self._run, self._history = run, dict(run.history)
        # The flow run's context says whose artifacts they are.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._work,), name="knowrl-artifacts", daemon=True
        )
        self._thread.start()

    def begin(self, key: StageKey) -> None:
        """Show that it runs."""
        super().begin(key)
        self._failed = None
        self._changed.set()

    def end(self, key: StageKey, summary: str | None) -> None:
        """Show what came of it."""
        super().end(key, summary)
        if self._run is not None:
            self._history = dict(self._run.history)
        self._failed = key if summary is None else None
        self._changed.set()

    def _work(self) -> None:
        while not self._ended.is_set():
            self._changed.wait(EVERY)
            self._changed.clear()
            try:
                self._publish()
            except Exception as error:
                if not self._warned:
                    self._warned = True
                    self.warning(f"Prefect does not take the run's artifacts: {type(error).__name__}: {error}")
                self._ended.wait(PAUSE)
                if self._ended.is_set():
                    return
        self._publish_last()

    def _publish_last(self) -> None:
        try:
            self._publish()
        except Exception as error:
            if not self._warned:
                self.warning(f"Prefect does not take the run's last artifacts: {type(error).__name__}: {error}")

    def _publish(self) -> None:
        if self._run is None:
            return
        name, history, now = self._run.paths.name, self._history, self.meter.read()
        standing = Standing(name, self._run.keys, history, iteration_rows(history), ())
        left = standing.run_left(now) if now else None
        text = f"Run {name}: {len(history)} of {len(standing.keys)} stages"
        text += f", {now.stage}" + (f" {counts(now)}" if now.total else "") if now else ""
        text += f", {rough_duration(left)} left" if left else ""
        self._progress(artifact_key(name, "progress"), 100.0 * standing.fraction(now), text)
        failed = self._failed
        running = now.stage if now else None
        rows = stage_rows(standing, running, str(failed) if failed else None)
        self._table(artifact_key(name, "stages"), rows, f"Stages of run {name}")
        end = f". Stopped after iteration {self.stop.iteration}: {self.stop.reason}" if self.stop else ""
        self._table(artifact_key(name, "iterations"), titled_rows(history), f"Iterations of run {name}{end}")

    def _progress(self, key: str, percent: float, text: str) -> None:
        if self._sent.get(key) == (percent, text):
            return
        if key in self._ids:
            update_progress_artifact(self._ids[key], percent, text)
        else:
            self._ids[key] = cast(UUID, create_progress_artifact(percent, key, text))
        self._sent[key] = percent, text

    def _table(self, key: str, rows: list[dict[str, Any]], text: str) -> None:
        if not rows or self._sent.get(key) == (rows, text):
            return
        if key in self._ids:
            with get_client(sync_client=True) as client:
                client.update_artifact(self._ids[key], ArtifactUpdate(data=json.dumps(rows), description=text))
        else:
            self._ids[key] = cast(UUID, create_table_artifact(rows, key, text))
        self._sent[key] = rows, text


def stage_rows(standing: Standing, running: str | None, failed: str | None) -> list[dict[str, Any]]:
    """The table of stages: those that are committed, and the one under way or failed."""
    rows: list[dict[str, Any]] = []
    for key in standing.keys:
        manifest = standing.history.get(key)
        state = "Completed" if manifest else {running: "Running", failed: "Failed"}.get(str(key))
        if state is None:
            continue
        rows.append(
            {
                "iteration": key.iteration,
                "stage": key.stage,
                "state": state,
                "seconds": round(manifest.seconds, 1) if manifest else "",
                "rows": sum(ref.rows or 0 for ref in manifest.outputs) if manifest else "",
                "key metrics": ", ".join(key_metrics(manifest, standing.history)) if manifest else "",
            }
        )
    return rows
