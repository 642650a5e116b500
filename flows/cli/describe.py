"""What ``knowrl status`` says of a run."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from flows.cli.guarding import stopped
from flows.cli.options import resume_command, stored_config
from knowrl_core.errors import KnowrlError
from knowrl_core.guards import find_stop
from knowrl_core.report import Ledger, Standing
from knowrl_core.report.note import NotedProgress, read_progress
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.lock import Holder
from knowrl_core.storage.manifest import MANIFEST
from knowrl_core.storage.roots import is_running, look, writer
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.verify import committed_manifests
from tasks.starting import starting_points

SHOWN: Final = 10
"""Firings of guards, and starting points, that are listed on the terminal."""
SILENT: Final = 60.0
"""Seconds without a note after which it is said how old the last one is."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as another process sees it."""

    item: dict[str, Any]
    """For scripts."""
    standing: Standing
    progress: NotedProgress | None
    """The stage under way."""

    @property
    def note(self) -> str:
        """Who works on it."""
        holder = self.item["holder"]
        if self.item["state"] != "running":
            return str(self.item["state"])
        text = f"process {holder['pid']} on {holder['host']}, started {holder['started']}" if holder else "running"
        silent = time.time() - self.progress.written if self.progress else 0.0
        return f"{text}; last word {silent:.0f} s ago" if silent > SILENT else text


class Watched:
    """A run that is looked at again and again: what is committed is read once.

    Args:
        paths: The run.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._mark: object = None
        self._item: dict[str, Any] = {}
        self._ledger: Ledger | None = None
        self._standing: Standing | None = None

    @property
    def remote(self) -> bool:
        """Whether each look asks an object store."""
        return self._paths.remote is not None

    def look(self) -> Seen:
        """See how it stands now.

        Raises:
            ArtifactError: Something of it is broken.
            InputError: There is no such run.
        """
        paths = look(self._paths)
        running = is_running(paths)
        run_file = RunFile.read(paths)
        mark = running, self._marks(run_file.stages)
        standing = self._standing
        if standing is None or mark != self._mark:
            if self._ledger is None or standing is None or standing.keys != tuple(run_file.stages):
                self._ledger = Ledger(paths, run_file.stages)
            standing = self._ledger.standing(committed_manifests(paths, run_file.stages))
            self._item = _item(paths, run_file, standing, running=running)
            self._standing, self._mark = standing, mark
        progress = read_progress(paths) if running else None
        if progress is not None and (progress.key in standing.history or progress.key not in standing.keys):
            progress = None  # the next stage has not begun, or it is none of this run
        holder = writer(paths) if running else None
        return Seen({**self._item, **_now(standing, progress, holder)}, standing, progress)

    def _marks(self, keys: Sequence[StageKey]) -> list[tuple[int, int, int]]:
        """What changes when something is committed, removed or begun."""
        marks = []
        for path in (self._paths.run_file, *(self._paths.stage(key) / MANIFEST for key in keys)):
            try:
                found = path.stat()
            except OSError:
                break
            marks.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return marks


def describe_any(paths: RunPaths) -> dict[str, Any]:
    """What is to be said of a run; a broken run is described as such, so that it does not hide the others."""
    try:
        return Watched(paths).look().item
    except KnowrlError as error:
        return {"name": paths.name, "folder": paths.shown, "state": "cannot be read", "error": error.message}


def sentence(item: dict[str, Any]) -> str:
    """Where a run stands, where it goes on, and why it ended, in words."""
    if "stages" not in item:
        return f"{item['state']}: {item['error']}"
    text = f"{item['state']}, {item['stages_committed']} of {item['stages']} stages committed"
    if item["stopped"]:
        text += f"\n{item['stopped']}"
    elif item["next_stage"] and item["state"] != "running":
        text += f"; `{item['resume']}` goes on at {item['next_stage']}"
    points = item["starting_points"]
    if len(points) > 1:
        more = " and earlier ones (--json lists all)" if len(points) > SHOWN else ""
        text += f"\n`resume --from` and `fork --at` can start at once at {', '.join(points[-SHOWN:])}{more}"
    if item["error"]:
        text += f"\nlast error: {item['error']}"
    return text


def _item(paths: RunPaths, run_file: RunFile, standing: Standing, *, running: bool) -> dict[str, Any]:
    iterations = int(run_file.config["run"]["iterations"])
    keys, history = standing.keys, standing.history
    last = run_file.attempts[-1] if run_file.attempts else None
    # The outcome is written by the process itself; one that was killed could not.
    stop = None if running else find_stop(stored_config(paths, None).guards, paths, history, iterations)
    outcome = "running" if running else ((last.outcome or "killed") if last else "not started")
    return {
        "name": paths.name,
        "folder": paths.shown,
        "state": "stopped" if stop else outcome,
        "error": last.error if last and not running else None,
        "iterations": iterations,
        "stages_committed": len(history),
        "stages": len(keys),
        "resume": resume_command(paths),
        "starting_points": [str(key) for key in starting_points(paths, keys)],
        "next_stage": next((str(key) for key in keys if key not in history), None),
        "best_iteration": standing.best,
        "stopped": stopped(stop, paths) if stop else None,
        "guards": [dataclasses.asdict(row) for row in standing.firings],
        "rows": [dataclasses.asdict(row) for row in standing.rows],
    }


def _now(standing: Standing, progress: NotedProgress | None, holder: Holder | None) -> dict[str, Any]:
    """What changes between two commits."""
    return {
        "holder": dataclasses.asdict(holder) if holder else None,
        "fraction": standing.fraction(progress),
        "seconds_left": standing.run_left(progress) if holder else None,
        "stage": {**progress.model_dump(), "seconds_left": standing.stage_left(progress)} if progress else None,
    }
