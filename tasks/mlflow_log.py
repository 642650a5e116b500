"""A run in MLflow: a parent run with metrics by iteration, and a child run an iteration, from the manifests.

Each child carries a tag with the digest of every manifest that has been logged, set after its numbers. So nothing is
counted twice: what carries its tag is skipped, and a point that a crash left without a tag is overwritten, since time,
step and value of a point are those of the manifest.
"""

import getpass
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

from knowrl_core.config import Config, flatten
from knowrl_core.guards import DECISION, find_stop, read_firings
from knowrl_core.storage.files import sha256_json
from knowrl_core.storage.layout import CONSENSUS, EVALUATE, UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import MANIFEST, Manifest
from knowrl_core.storage.run_file import RunFile
from tasks.mlflow_note import describe

PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
KEY_TAG = "knowrl.key"
STAGE_TAG = "stage."
GUARDS_TAG = "knowrl.guards"
FORK_TAG = "knowrl.forked_from"
STOPPED_TAG = "knowrl.stopped"
TAG_LIMIT = 4_000
"""Characters of a tag; MLflow takes 5,000 to 8,000, as the version may be."""

HEADLINE = {
    CONSENSUS: {"mean_share": "consensus_share"},
    UPDATE: {"reward/mean": "reward"},
    EVALUATE: {
        "frozen/agreement": "intrinsic_accuracy",
        "probe/accuracy": "probe_accuracy",
        "probe/balanced_accuracy": "balanced_accuracy",
        "probe/f1": "f1",
        "probe/called_feasible": "called_feasible",
    },
}
"""The columns of the iterations' table. They are logged a second time under GLANCE."""

GLANCE = "at_a_glance/"
"""MLflow shows sections in alphabetical order: this one comes first."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The experiment is about training a model; otherwise MLflow guesses, and asks its user."""


@dataclass(slots=True)
class _Child:
    """The run of an iteration and its tags."""

    run_id: str
    tags: dict[str, str]


class MlflowLog:
    """One run in one MLflow store.

    Args:
        uri: The store.
        config: The run's config.
        paths: The run.
        run_file: Its identity and history.

    Raises:
        Exception: Whatever MLflow raises; the object is then of no further use.
    """

    def __init__(self, uri: str, config: Config, paths: RunPaths, run_file: RunFile) -> None:
        self._config, self._paths, self._run_file = config, paths, run_file
        database = _sqlite_file(uri)
        with _locked(database):
            self._client = MlflowClient(uri)  # makes the tables of a new SQLite file
            self._experiment = self._find_experiment(database)
        self._parent = ""
        self._children: dict[int, _Child] = {}
        self._seen: dict[StageKey, Manifest] = {}
        self._described = False
        self._open_parent()

    def log(self, history: Mapping[StageKey, Manifest]) -> None:
        """Log what is committed and not logged yet."""
        new = {key: _digest(manifest) for key, manifest in history.items() if self._seen.get(key) is not manifest}
        if any(self._logged(key) not in (None, digest) for key, digest in new.items()):
            self._start_over()
            new = {key: _digest(manifest) for key, manifest in history.items()}
        missing = [key for key, digest in new.items() if self._logged(key) != digest]
        for key in missing:
            self._log_stage(key, history[key], new[key])
        self._seen.update((key, history[key]) for key in new)
        # When it is opened, too: today's config may let a run go on that a guard ended.
        if any(key.stage == EVALUATE for key in (missing if self._described else history)):
            self._describe(history)
            self._described = True

    def attach(self, file: Path) -> str:
        """Log a file to the parent run, in the place of an earlier one of its name; returns its address in the UI."""
        self._client.log_artifact(self._parent, str(file))
        return f"/#/experiments/{self._experiment}/runs/{self._parent}/artifacts/{quote(file.name)}"

    def end(self, status: str, history: Mapping[StageKey, Manifest]) -> None:
        """Say how the attempt ended: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        for child in self._children.values():
            if f"{STAGE_TAG}{EVALUATE}" not in child.tags:
                self._client.set_terminated(child.run_id, status)
        # The end of the last stage, so that starting a finished run again does not make it longer.
        last = max((_milliseconds(manifest.finished) for manifest in history.values()), default=None)
        self._client.set_terminated(self._parent, status, end_time=last if status == "FINISHED" else None)

    def _describe(self, history: Mapping[StageKey, Manifest]) -> None:
        """Set what the parent run says in words; always from the whole history and today's config."""
        stop = find_stop(self._config.guards, self._paths, history, self._config.run.iterations)
        firings = read_firings(self._paths, history)
        fired = [f"it{row.iteration:03d} {row.guard} ({row.action})" for row in firings]
        tags = {
            NOTE_TAG: describe(self._paths, self._config.model.path, history, stop, firings),
            GUARDS_TAG: ", ".join(fired)[-TAG_LIMIT:] or "none",
            STOPPED_TAG: stop.reason[:TAG_LIMIT] if stop else "no",
        }
        self._client.log_batch(self._parent, tags=[RunTag(name, text) for name, text in tags.items()])

    def _find_experiment(self, database: Path | None) -> str:
        name = self._config.tracking.experiment
        location = (database.parent / "mlartifacts").as_uri() if database else None
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=location, tags=KIND))
            except MlflowException:  # another run was faster
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _open_parent(self) -> None:
        key = self._run_file.run_id
        runs = self._search(f"tags.`{KEY_TAG}` = '{key}'")
        if runs:
            self._parent = runs[0].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
        else:
            past = self._run_file.forked_from
            tags = {FORK_TAG: f"{past.run} at {past.at}"} if past else None
            self._parent = self._create(self._run_file.name, key, "run", _milliseconds(self._run_file.created), tags)
        if not runs or not runs[0].data.params:
            self._log_params(self._parent, dict(flatten(self._run_file.config)))
        self._client.log_dict(self._parent, self._run_file.model_dump(mode="json"), "run.json")
        self._children = {}
        for run in self._search(f"tags.`{PARENT_TAG}` = '{self._parent}'") if runs else ():
            iteration = int(run.data.tags["knowrl.iteration"])
            self._children[iteration] = _Child(run.info.run_id, dict(run.data.tags))
            if f"{STAGE_TAG}{EVALUATE}" not in run.data.tags:
                self._client.update_run(run.info.run_id, status="RUNNING")

    def _start_over(self) -> None:
        """Log everything into new runs: a stage was done again, and MLflow cannot replace what it has of it."""
        for child in self._children.values():
            self._client.delete_run(child.run_id)
        self._client.delete_run(self._parent)
        self._open_parent()

    def _logged(self, key: StageKey) -> str | None:
        child = self._children.get(key.iteration)
        return child.tags.get(f"{STAGE_TAG}{key.stage}") if child else None

    def _log_stage(self, key: StageKey, manifest: Manifest, digest: str) -> None:
        child = self._child(key.iteration, manifest)
        moment = _milliseconds(manifest.finished)
        values = {f"{key.stage}/{name}": value for name, value in manifest.metrics.items()}
        values |= {
            f"{GLANCE}{short}": manifest.metrics[name]
            for name, short in HEADLINE.get(key.stage, {}).items()
            if name in manifest.metrics
        }
        values[f"{key.stage}/seconds"] = manifest.seconds
        metrics = [Metric(name, value, moment, key.iteration) for name, value in values.items() if math.isfinite(value)]
        folder = self._paths.stage(key)
        for file in (*sorted(folder.glob("*.parquet")), *folder.glob(DECISION), folder / MANIFEST):
            self._client.log_artifact(child.run_id, str(file), artifact_path=key.stage)
        tag = f"{STAGE_TAG}{key.stage}"
        self._client.log_batch(self._parent, metrics=metrics)
        tags = [RunTag(tag, digest)]
        if key.stage == EVALUATE:
            fired = [f"{row.guard} ({row.action}): {row.message}" for row in read_firings(self._paths, {key: manifest})]
            tags.append(RunTag(GUARDS_TAG, "\n".join(fired)[:TAG_LIMIT] or "none"))
        self._client.log_batch(child.run_id, metrics=metrics, tags=tags)
        child.tags[tag] = digest
        if key.stage == EVALUATE:
            self._client.set_terminated(child.run_id, "FINISHED", end_time=moment)

    def _child(self, iteration: int, manifest: Manifest) -> _Child:
        if iteration not in self._children:
            run_id = self._create(
                f"{self._run_file.name}/it{iteration:03d}",
                f"{self._run_file.run_id}/it{iteration:03d}",
                "iteration",
                _milliseconds(manifest.started),
                {PARENT_TAG: self._parent, "knowrl.iteration": str(iteration)},
            )
            self._log_params(run_id, {"iteration": iteration, **self._params_at(iteration)})
            self._children[iteration] = _Child(run_id, {})
        return self._children[iteration]

    def _create(self, name: str, key: str, kind: str, start: int, tags: Mapping[str, str] | None = None) -> str:
        common = {
            KEY_TAG: key,
            "knowrl.run": self._run_file.name,
            "knowrl.kind": kind,
            "mlflow.user": _user(),
            "mlflow.source.name": "knowrl",
        }
        run = self._client.create_run(
            self._experiment, start_time=start, run_name=name, tags={**common, **(tags or {})}
        )
        return str(run.info.run_id)

    def _search(self, condition: str) -> list[Run]:
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], condition, max_results=1000, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _params_at(self, iteration: int) -> dict[str, Any]:
        """The config that an iteration ran with: later changes undone."""
        params = dict(flatten(self._run_file.config))
        for change in reversed(self._run_file.changes):
            if change.first_stage and StageKey.parse(change.first_stage).iteration > iteration:
                params[change.field] = change.old
        return params

    def _log_params(self, run_id: str, values: Mapping[str, Any]) -> None:
        params = [Param(name, str(value)[:500]) for name, value in values.items()]
        rate = math.log10(values["rl.learning_rate"])
        params.append(Param("rl.log10_learning_rate", f"{rate:.4f}"))  # the UI rounds 1e-6 to 0
        for start in range(0, len(params), 100):  # MLflow's limit for a batch
            self._client.log_batch(run_id, params=params[start : start + 100])


def attach_to(uri: str, experiment: str, run_id: str, file: Path) -> bool:
    """Log a file to the parent run of a run that is in MLflow already; returns whether it is.

    Args:
        uri: The store.
        experiment: Name of the experiment.
        run_id: The run's id, from ``run.json``.
        file: The file.
    """
    database = _sqlite_file(uri)
    if database is not None and not database.exists():
        return False
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], f"tags.`{KEY_TAG}` = '{run_id}'") if found else []
    for run in runs:
        client.log_artifact(run.info.run_id, str(file))
    return bool(runs)


def _sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store."""
    if not uri.startswith("sqlite"):
        return None
    database = make_url(uri).database
    return Path(database).absolute() if database and database != ":memory:" else None


@contextmanager
def _locked(database: Path | None) -> Iterator[None]:
    """Held while a SQLite store is opened: two processes that make its tables at once break it for good."""
    if database:
        database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f".{database.name}.lock"), timeout=300) if database else nullcontext():
        yield


def _digest(manifest: Manifest) -> str:
    return sha256_json(manifest.model_dump(mode="json"))


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())
