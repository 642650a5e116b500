"""``run.json``: what a run is, and the history of attempts and config changes."""

import json
import logging
import os
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from knowrl_core.config import Config
from knowrl_core.config.rl import LoraConfig
from knowrl_core.errors import ArtifactError, InputError
from knowrl_core.storage.files import read_small, sha256_json, write_atomic
from knowrl_core.storage.layout import MAX_ITERATIONS, STAGES, UPDATE, RunPaths, StageKey, stage_keys
from knowrl_core.storage.records import SEAL, first_problem, sealed
from knowrl_core.version import library_versions

_log: Final = logging.getLogger(__name__)

PINNED_FIELDS = (("run", "name"), ("run", "seed"))
"""Config fields that all history depends on; they never change in a run."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Attempt(_Part):
    """One process that worked on the run."""

    started: str
    host: str
    pid: int
    first_stage: str | None
    """Where it went on; None when there was nothing left to do."""
    prefect_flow_run: str | None = None
    versions: dict[str, str]
    ended: str | None = None
    outcome: str | None = None
    """completed, stopped (by a guard), failed, interrupted, or killed (found out by the next attempt)."""
    error: str | None = None


class ConfigChange(_Part):
    """A field whose value changed on resume, and the first stage that it applies to."""

    at: str
    first_stage: str | None
    field: str
    old: Any
    new: Any

    def applies_before(self, stage: StageKey) -> bool:
        """Whether it applied to a stage before the one given."""
        return self.first_stage is None or StageKey.parse(self.first_stage).place < stage.place

    def applies_after(self, stage: StageKey) -> bool:
        """Whether it applied to a stage after the one given first."""
        return self.first_stage is not None and StageKey.parse(self.first_stage).place > stage.place


class Redone(_Part):
    """Stages that were committed, and removed to be done again."""

    at: str
    first_stage: str
    """It and what followed it."""
    why: str
    prefect_flow_run: str | None = None


class ForkedFrom(_Part):
    """The run whose past a run shares."""

    run: str
    run_id: str
    at: str
    """The first stage that is the new run's own."""


class RunFile(_Part):
    """Content of ``run.json``."""

    name: str
    run_id: str
    """Tells runs of the same name apart, for instance in a shared MLflow."""
    created: str
    seed: int
    pins: dict[str, str]
    """sha256 of what all history depends on: the initial model, the seeds, the probe."""
    config: dict[str, Any]
    """The resolved config as of the last attempt."""
    versions: dict[str, str]
    attempts: list[Attempt] = []
    changes: list[ConfigChange] = []
    redone: list[Redone] = []
    forked_from: ForkedFrom | None = None

    @classmethod
    def create(cls, config: Config, pins: dict[str, str]) -> Self:
        """A run that starts now."""
        return cls(
            name=config.run.name,
            run_id=uuid.uuid4().hex,
            created=now(),
            seed=config.run.seed,
            pins=pins,
            config=config.model_dump(mode="json"),
            versions=library_versions(),
        )

    @classmethod
    def read(cls, paths: RunPaths) -> "RunFile":
        """Read ``run.json``; where it is damaged, its copy, which the next attempt puts in its place.

        Raises:
            ArtifactError: Both are broken.
            InputError: There is no such run.
        """
        try:
            return _read(paths.run_file)
        except FileNotFoundError:
            raise InputError(
                f"no run {paths.name!r} in {paths.location}",
                hint="`knowrl status` lists the runs; `knowrl run` starts one.",
            ) from None
        except ArtifactError as error:
            try:
                found = _read(_copy(paths))
            except (ArtifactError, FileNotFoundError):
                raise error from None
            _log.warning("%s; its copy %s is taken", error.message, _copy(paths).name)
            return found

    @staticmethod
    def damage(paths: RunPaths) -> ArtifactError | None:
        """What is wrong with ``run.json`` itself, whether or not its copy stands in for it."""
        try:
            _read(paths.run_file)
        except ArtifactError as error:
            return error
        except FileNotFoundError:
            return None  # of no run at all nothing is damaged
        return None

    def write(self, paths: RunPaths) -> None:
        """Replace ``run.json`` as a whole, and then its copy."""
        text = self.text()
        write_atomic(paths.run_file, text)
        paths.publish(paths.run_file)
        write_atomic(_copy(paths), text)

    def text(self) -> str:
        """Content of ``run.json``, sealed by the sha256 of the rest."""
        return json.dumps(sealed(self.model_dump(mode="json")), indent=2, ensure_ascii=False) + "\n"

    @property
    def stages(self) -> tuple[StageKey, ...]:
        """All stages of the run in order, by the config as of the last attempt."""
        warmup = int(self.config.get("warmup", {}).get("epochs", 0)) > 0
        return tuple(stage_keys(int(self.config["run"]["iterations"]), warmup=warmup))

    def check_pins(self, config: Config, pins: dict[str, str]) -> None:
        """Refuse a change of what history depends on.

        Raises:
            InputError: Naming each field, the old and the new value, and the way out.
        """
        new = config.model_dump(mode="json")
        problems = [
            f"{section}.{field}: got {new[section][field]!r}, expected {self.config[section][field]!r} as before"
            for section, field in PINNED_FIELDS
            if new[section][field] != self.config[section][field]
        ]
        if not problems:
            problems = [
                f"{name}: got content with sha256 {pins.get(name, 'none')[:12]}, expected {old[:12]} as before"
                for name, old in self.pins.items()
                if pins.get(name) != old
            ]
        if problems:
            raise InputError(
                f"run {self.name!r} cannot go on with another past:\n" + "\n".join(problems),
                hint="Undo the change, or start a new run with --set run.name=NEW.",
            )

    def check_past(self, config: Config, pins: dict[str, str], stands: Callable[[StageKey], bool]) -> None:
        """Refuse a config that contradicts what is committed.

        Args:
            config: The new config.
            pins: sha256 of its inputs.
            stands: Whether a stage is committed, and stays.

        Raises:
            InputError: Naming the fields and the way out.
        """
        self.check_pins(config, pins)
        self.check_warmup(config, begun=any(stands(StageKey(1, stage)) for stage in STAGES))
        first = 2 if config.warmup.epochs else 1  # the loop does not go on with a warm-up's optimizer state
        updates = (StageKey(iteration, UPDATE) for iteration in range(first, config.run.iterations + 1))
        self.check_adapters(config, begun=any(map(stands, updates)))

    def check_warmup(self, config: Config, *, begun: bool) -> None:
        """Refuse to turn the warm-up on or off once iteration 1 has begun: it has other stages with it.

        Args:
            config: The new config.
            begun: Iteration 1 has a committed stage.

        Raises:
            InputError: Naming the field and the way out.
        """
        old, new = int(self.config.get("warmup", {}).get("epochs", 0)), config.warmup.epochs
        if begun and (old > 0) != (new > 0):
            expected = f"more than 0, as before ({old})" if old else "0, as before"
            raise InputError(
                f"warmup.epochs: got {new}, expected {expected}: iteration 1 of run {self.name!r} is "
                f"{'the warm-up' if old else 'no warm-up'} and has begun",
                hint=f"Go on with --set warmup.epochs={old}, or start a new run with --set run.name=NEW.",
            )

    def check_adapters(self, config: Config, *, begun: bool) -> None:
        """Refuse other adapters once an update of the loop is committed: its optimizer state belongs to the old ones.

        Args:
            config: The new config.
            begun: A checkpoint is there whose optimizer state would go on.

        Raises:
            InputError: Naming the field and the way out.
        """
        old, new = LoraConfig.model_validate(self.config["rl"].get("lora", {})), config.rl.lora
        for field in LoraConfig.model_fields:
            before, after = getattr(old, field), getattr(new, field)
            if begun and before != after:
                shown = json.dumps(before)
                raise InputError(
                    f"rl.lora.{field}: got {json.dumps(after)}, expected {shown} as before: the optimizer state of run "
                    f"{self.name!r} belongs to {'these adapters' if old.rank else 'all weights'}",
                    hint=f"Go on with --set 'rl.lora.{field}={shown}', or start a new run with --set run.name=NEW.",
                )

    def config_at(self, stage: StageKey) -> dict[str, Any]:
        """The config that a stage was done with, or would have been."""
        config: dict[str, Any] = json.loads(json.dumps(self.config))
        for change in reversed(self.changes):
            if change.applies_before(stage) or change.first_stage == str(stage):
                continue
            *sections, field = change.field.split(".")
            part = config
            for section in sections:
                part = part.setdefault(section, {})
            part[field] = change.old
        return config

    def record_changes(self, config: Config, first_stage: str | None) -> list[ConfigChange]:
        """Take over a changed config; what is committed stays as it is."""
        new = config.model_dump(mode="json")
        changes = [
            ConfigChange(at=now(), first_stage=first_stage, field=field, old=old, new=value)
            for field, old, value in _differences(self.config, new)
        ]
        self.changes.extend(changes)
        self.config = new
        return changes

    def go_on_at(self, stage: StageKey) -> None:
        """Let earlier changes that came after a stage hold from it on.

        What follows it is gone, and will be done with the config as it is now.
        """
        for change in self.changes:
            if change.applies_after(stage):
                change.first_stage = str(stage)

    def note_redone(self, first_stage: str, why: str, flow_run: str | None = None) -> None:
        """Note that committed stages are about to be removed; the caller writes the file."""
        self.redone.append(Redone(at=now(), first_stage=first_stage, why=why[:2_000], prefect_flow_run=flow_run))

    def went_back(self, flow_run: str | None) -> bool:
        """Whether a flow run has gone back already, and is only tried again."""
        return flow_run is not None and any(item.prefect_flow_run == flow_run for item in self.redone)

    def begin_attempt(self, first_stage: str | None, flow_run: str | None) -> Attempt:
        """Note that this process works on the run now."""
        for attempt in self.attempts:
            if attempt.outcome is None:
                attempt.outcome = "killed"
        attempt = Attempt(
            started=now(),
            host=socket.gethostname(),
            pid=os.getpid(),
            first_stage=first_stage,
            prefect_flow_run=flow_run,
            versions=library_versions(),
        )
        self.attempts.append(attempt)
        return attempt


def now() -> str:
    """This moment, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after and f"{prefix}{key}" != "run.root":  # where the folder stands is no part of the run
            found.append((f"{prefix}{key}", before, after))
    return found


def _copy(paths: RunPaths) -> Path:
    """A second ``run.json`` on the same disk: it holds what no stage could be asked for again."""
    return paths.run_file.with_name(f".{paths.run_file.name}.copy")


def _read(path: Path) -> RunFile:
    """Read a record and check it.

    Raises:
        ArtifactError: It cannot be read, is no record, or was altered.
        FileNotFoundError: There is none.
    """
    hint = "Restore the file from a copy. Without it the run cannot go on; its stages can still be read."
    try:
        content = json.loads(read_small(path))
        # Records of earlier versions have no seal.
        if isinstance(content, dict) and content.pop(SEAL, None) not in (None, sha256_json(content)):
            raise ArtifactError(f"{path}: its content was altered: it does not have its sha256", hint=hint)
        found = RunFile.model_validate(content)
        _check_config(found)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}", hint=hint) from error
    except ValidationError as error:
        raise ArtifactError(f"{path}: not the record of a run: {first_problem(error)}", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not the record of a run: {str(error)[:300]}", hint=hint) from None
    return found


def _check_config(record: RunFile) -> None:
    """What is read of a config before it is built as a whole: a directory may come from anybody.

    Raises:
        ValueError: Naming the field.
    """
    sections = {name: record.config.get(name, {}) for name in ("run", "rl", "warmup")}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ValueError(f"config.{name}: got {type(section).__name__}, expected a section")
    iterations, epochs = sections["run"].get("iterations"), sections["warmup"].get("epochs", 0)
    if type(iterations) is not int or not 0 <= iterations <= MAX_ITERATIONS:
        raise ValueError(f"config.run.iterations: got {str(iterations)[:40]}, expected 0 to {MAX_ITERATIONS:,}")
    if type(epochs) is not int or epochs < 0:
        raise ValueError(f"config.warmup.epochs: got {str(epochs)[:40]}, expected a number from 0")
    seed = sections["run"].get("seed")
    if seed != record.seed:
        raise ValueError(f"config.run.seed: got {str(seed)[:40]}, expected {record.seed}, as the field seed says")
