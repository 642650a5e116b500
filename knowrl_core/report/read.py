"""A run as the report reads it: its record, its committed stages, and tables whose hash is the one recorded."""

from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from knowrl_core.config.guards import GuardsConfig
from knowrl_core.errors import ArtifactError, OtherVersionError
from knowrl_core.guards import GUARD_TABLE, Decision, Stop, find_stop, last_evaluated, read_decision
from knowrl_core.storage.files import canonical_json
from knowrl_core.storage.layout import EVALUATE, RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.records import first_problem
from knowrl_core.storage.roots import is_running
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.schemas import GuardRecord, Record
from knowrl_core.storage.seen import SeenFiles
from knowrl_core.storage.tables import REPAIR_HINT, read_columns, read_table
from knowrl_core.storage.verify import check_file, committed_manifests, later_stage

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run on disk, for reading only."""

    paths: RunPaths
    file: RunFile
    history: dict[StageKey, Manifest]
    """Its committed stages, in order."""
    state: str
    """running, completed, stopped (by a guard), failed, interrupted, killed or not started."""
    stop: Stop | None

    def has(self, key: StageKey, name: str) -> bool:
        """Whether a committed stage wrote a file of this name."""
        manifest = self.history.get(key)
        path = self.paths.relative(self.paths.file(key, name))
        return manifest is not None and any(ref.path == path for ref in manifest.outputs)

    def table(self, key: StageKey, name: str, record: type[R]) -> list[R]:
        """Records of a committed table.

        Raises:
            ArtifactError: It is missing, altered, or of another schema.
        """
        self._check(key, name)
        return read_table(self.paths.file(key, name), record)

    def columns(self, key: StageKey, name: str, record: type[Record], names: tuple[str, ...]) -> dict[str, list[Any]]:
        """Some columns of a committed table; errors as :meth:`table`."""
        self._check(key, name)
        return read_columns(self.paths.file(key, name), record, names)

    def firings(self) -> list[GuardRecord]:
        """All firings of its guards, in order."""
        return [
            row
            for key, manifest in self.history.items()
            if key.stage == EVALUATE and manifest.metrics.get("guards/fired")
            for row in self.table(key, GUARD_TABLE, GuardRecord)
        ]

    def decisions(self) -> dict[int, Decision]:
        """What followed from each evaluated iteration."""
        return {
            key.iteration: read_decision(self.paths, key.iteration) for key in self.history if key.stage == EVALUATE
        }

    def _check(self, key: StageKey, name: str) -> None:
        path = self.paths.relative(self.paths.file(key, name))
        ref = next((ref for ref in self.history[key].outputs if ref.path == path), None)
        if ref is None:
            raise ArtifactError(f"{path}: stage {key} did not write it, expected it to", hint=REPAIR_HINT)
        check_file(self.paths, ref, SeenFiles(None))


WAITING: Final = "waiting"
"""A part of the stages was done, for others to go on (a relay)."""


def read_run(paths: RunPaths, *, state: str | None = None) -> StoredRun:
    """Read a run's record and manifests.

    Args:
        paths: The run.
        state: How it stands, where the caller knows better than the record: a run that is about to end.

    Raises:
        InputError: There is no such run.
        ArtifactError: Its record or a manifest is broken, or a stage is missing though a later one is there.
    """
    file = RunFile.read(paths)
    keys = file.stages
    history = committed_manifests(paths, keys)
    if len(history) < len(keys):
        missing = keys[len(history)]
        later = later_stage(paths, keys, missing)
        if later is not None:
            message = f"{paths.stage(missing)} is missing although {paths.stage(later)} comes after it"
            raise ArtifactError(message, hint=REPAIR_HINT)
    if state is None:
        state = "running" if is_running(paths) else _last_outcome(file)
    if state == "completed" and len(history) < len(keys):
        state = WAITING
    stop = None
    if state != "running" and last_evaluated(history) is not None:
        stop = find_stop(_guards(paths, file), paths, history, int(file.config["run"]["iterations"]))
    return StoredRun(paths, file, history, "stopped" if stop else state, stop)


def _guards(paths: RunPaths, file: RunFile) -> GuardsConfig:
    try:
        return GuardsConfig.model_validate_json(canonical_json(file.config.get("guards", {})))
    except ValidationError as error:
        raise OtherVersionError(
            f"{paths.run_file}: config field guards.{first_problem(error)}",
            hint="It was written by another version of KnowRL; use that version.",
        ) from None


def _last_outcome(file: RunFile) -> str:
    return (file.attempts[-1].outcome or "killed") if file.attempts else "not started"
