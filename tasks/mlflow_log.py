"""A run in MLflow: a parent run with metrics by iteration, and a child run an iteration, from the manifests.

Each child carries a tag with the digest of every manifest that has been logged, set after its numbers. So nothing is
counted twice: what carries its tag is skipped, and a point that a crash left without a tag is overwritten, since time,
step and value of a point are those of the manifest.
"""

import getpass
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import yaml
from mlflow.entities import Metric, Run, RunTag

from knowrl_core.config import Config
from knowrl_core.guards import DECISION, find_stop, read_firings
from knowrl_core.report import best_iteration
from knowrl_core.storage.files import sha256_json
from knowrl_core.storage.layout import CONSENSUS, EVALUATE, GENERATE, STAGES, UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import MANIFEST, Manifest
from knowrl_core.storage.run_file import RunFile
from tasks.mlflow_datasets import datasets_of, is_external
from tasks.mlflow_note import describe, describe_iteration
from tasks.mlflow_params import config_of_iteration, log_params
from tasks.mlflow_registry import Registry
from tasks.mlflow_store import has_experiment, open_store, search_runs
from tasks.mlflow_views import make_views
from tasks.starting import keys_of
from tasks.system_metrics import PREFIX, Point

PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
KEY_TAG = "knowrl.key"
STAGE_TAG = "stage."
GUARDS_TAG = "knowrl.guards"
FORK_TAG = "knowrl.forked_from"
STOPPED_TAG = "knowrl.stopped"
BEST_TAG = "knowrl.best"
INTRODUCED_TAG = "knowrl.introduced"
"""On a child whose parameters and config are logged."""
MODEL_TAG = "knowrl.model"
TAG_LIMIT = 4_000
"""Characters of a tag; MLflow takes 5,000 to 8,000, as the version may be."""

HEADLINE = {
    EVALUATE: {
        "probe/balanced_accuracy": "balanced_accuracy",
        "probe/f1": "f1",
        "probe/accuracy": "probe_accuracy",
        "probe/called_feasible": "called_feasible",
        "frozen/agreement": "intrinsic_accuracy",
    },
    CONSENSUS: {"mean_share": "consensus_share"},
    UPDATE: {"reward/mean": "reward"},
}
"""The columns of the iterations' table, the most telling first. They are logged a second time under GLANCE."""

GLANCE = "at_a_glance/"
"""MLflow shows sections in alphabetical order: this one comes first."""

COLUMNS = [f"{GLANCE}{name}" for names in HEADLINE.values() for name in names.values()]

BATCH = 1_000
"""Most metrics that MLflow takes at a time."""


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
        self._client, self._experiment = open_store(uri, config.tracking.experiment)
        make_views(self._client, self._experiment, COLUMNS)
        self._registry = Registry(self._client, config, paths, run_file)
        self.parent = ""
        """Id of the parent run."""
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
            self._log_stage(key, history, new[key])
        self._seen.update((key, history[key]) for key in new)
        # When it is opened, too: today's config may let a run go on that a guard ended.
        if any(key.stage == EVALUATE for key in (missing if self._described else history)):
            self._describe(history)
            self._described = True

    def log_system(self, points: list[Point]) -> None:
        """Log system metrics; the same points again change nothing."""
        for start in range(0, len(points), BATCH):
            self._client.log_batch(self.parent, metrics=[Metric(*point) for point in points[start : start + BATCH]])

    def attach(self, file: Path) -> str:
        """Log a file to the parent run, in the place of an earlier one of its name; returns its address in the UI."""
        self._client.log_artifact(self.parent, str(file))
        return f"/#/experiments/{self._experiment}/runs/{self.parent}/artifacts/{quote(file.name)}"

    def end(self, status: str, history: Mapping[StageKey, Manifest]) -> None:
        """Say how the attempt ended: ``FINISHED``, ``FAILED`` or ``KILLED``, and register the best checkpoint.

        The run itself goes on when an attempt was well and stages are missing all the same: they are done elsewhere (a
        relay). Then the parent and the iteration under way stay RUNNING, and there is nothing to register yet.
        """
        stopped = find_stop(self._config.guards, self._paths, history, self._config.run.iterations)
        if status == "FINISHED" and not stopped and any(key not in history for key in keys_of(self._config)):
            return
        for iteration, child in self._children.items():
            if f"{STAGE_TAG}{EVALUATE}" not in child.tags:
                self._client.log_batch(child.run_id, metrics=self._iteration_metrics(iteration, history))
                self._log_inputs(child, iteration, history)
                self._client.set_terminated(child.run_id, status)
        # The end of the last stage, so that starting a finished run again does not make it longer.
        last = max((_milliseconds(manifest.finished) for manifest in history.values()), default=None)
        self._client.set_terminated(self.parent, status, end_time=last if status == "FINISHED" else None)
        if status == "FINISHED":
            told = self._registry.publish(history, lambda iteration: self._children[iteration].run_id)
            self._client.set_tag(self.parent, MODEL_TAG, told)

    def _describe(self, history: Mapping[StageKey, Manifest]) -> None:
        """Set what the parent run says in words; always from the whole history and today's config."""
        stop = find_stop(self._config.guards, self._paths, history, self._config.run.iterations)
        firings = read_firings(self._paths, history)
        fired = [f"it{row.iteration:03d} {row.guard} ({row.action})" for row in firings]
        best = best_iteration(history)
        tags = {
            NOTE_TAG: describe(self._paths, self._config.model.path, history, stop, firings),
            GUARDS_TAG: ", ".join(fired)[-TAG_LIMIT:] or "none",
            STOPPED_TAG: stop.reason[:TAG_LIMIT] if stop else "no",
            BEST_TAG: "none" if best is None else f"it{best:03d}",
        }
        self._client.log_batch(self.parent, tags=[RunTag(name, text) for name, text in tags.items()])
        for iteration, child in self._children.items():
            text = "yes" if iteration == best else "no"
            if iteration == best or BEST_TAG in child.tags:
                self._tag(child, BEST_TAG, text)

    def _open_parent(self) -> None:
        key = self._run_file.run_id
        runs = search_runs(self._client, self._experiment, f"tags.`{KEY_TAG}` = '{key}'")
        runs.sort(key=lambda run: len(run.data.tags), reverse=True)
        self._delete(runs[1:])  # made twice: the answer to the first call was lost
        if runs:
            self.parent = runs[0].info.run_id
            self._client.update_run(self.parent, status="RUNNING")
        else:
            past = self._run_file.forked_from
            tags = {FORK_TAG: f"{past.run} at {past.at}"} if past else None
            self.parent = self._create(self._run_file.name, key, "run", _milliseconds(self._run_file.created), tags)
        if not runs or not runs[0].data.params:
            log_params(self._client, self.parent, self._run_file.config, {})
        self._client.log_dict(self.parent, self._run_file.model_dump(mode="json"), "run.json")
        self._client.log_text(self.parent, yaml.safe_dump(self._run_file.config, sort_keys=False), "config.yaml")
        self._open_children()

    def _open_children(self) -> None:
        """Find the children; those of an earlier parent, and those made twice, go."""
        self._children = {}
        condition = f"tags.`{KEY_TAG}` LIKE '{self._run_file.run_id}/it%'"
        found = search_runs(self._client, self._experiment, condition)
        own = [run for run in found if run.data.tags.get(PARENT_TAG) == self.parent]
        own.sort(key=lambda run: len(run.data.tags), reverse=True)
        surplus = [run for run in found if run.data.tags.get(PARENT_TAG) != self.parent]
        for run in own:
            iteration = int(run.data.tags["knowrl.iteration"])
            if iteration in self._children:
                surplus.append(run)
                continue
            child = self._children[iteration] = _Child(run.info.run_id, dict(run.data.tags))
            if INTRODUCED_TAG not in child.tags:
                self._introduce(iteration, child)
            if f"{STAGE_TAG}{EVALUATE}" not in child.tags:
                self._client.update_run(child.run_id, status="RUNNING")
        self._delete(surplus)

    def _delete(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._client.delete_run(run.info.run_id)

    def _start_over(self) -> None:
        """Log everything into new runs: a stage was done again, and MLflow cannot replace what it has of it.

        The parent goes first: whoever is interrupted after that finds no parent, and its children go when they are
        found without it.
        """
        old = self._client.get_run(self.parent)
        self._client.delete_run(self.parent)
        self._open_parent()
        for name in old.data.metrics:  # what was measured while it ran cannot be measured again
            if name.startswith(PREFIX):
                history = self._client.get_metric_history(old.info.run_id, name)
                self.log_system([Point(name, item.value, item.timestamp, item.step) for item in history])

    def _logged(self, key: StageKey) -> str | None:
        child = self._children.get(key.iteration)
        return child.tags.get(f"{STAGE_TAG}{key.stage}") if child else None

    def _log_stage(self, key: StageKey, history: Mapping[StageKey, Manifest], digest: str) -> None:
        manifest = history[key]
        child = self._child(key.iteration, manifest)
        self._log_files(child, key, manifest)
        if key.iteration:
            self._client.log_batch(self.parent, metrics=_metrics(key, manifest))
        elif key.stage == EVALUATE:  # the first numbers of all are the most telling ones
            self._client.log_batch(self.parent, metrics=self._iteration_metrics(0, history))
        tags = {f"{STAGE_TAG}{key.stage}": digest}
        metrics: list[Metric] = []
        if key.stage == EVALUATE:
            fired = [f"{row.guard} ({row.action}): {row.message}" for row in read_firings(self._paths, {key: manifest})]
            tags[GUARDS_TAG] = "\n".join(fired)[:TAG_LIMIT] or "none"
            tags[NOTE_TAG] = describe_iteration(self._paths, history, key.iteration)
            metrics = self._iteration_metrics(key.iteration, history)
            self._log_inputs(child, key.iteration, history)
            self._client.set_terminated(child.run_id, "FINISHED", end_time=_milliseconds(manifest.finished))
        self._client.log_batch(child.run_id, metrics=metrics, tags=[RunTag(name, text) for name, text in tags.items()])
        child.tags |= tags

    def _iteration_metrics(self, iteration: int, history: Mapping[StageKey, Manifest]) -> list[Metric]:
        """All numbers of an iteration, the most telling first: MLflow lists and compares them in this order.

        That is why a child gets them when its iteration is done; the parent has each stage's at once.
        """
        keys = [StageKey(iteration, stage) for stage in (EVALUATE, *STAGES[:-1])]
        metrics = [item for key in keys if key in history for item in _metrics(key, history[key])]
        return sorted(metrics, key=lambda item: not item.key.startswith(GLANCE))

    def _log_inputs(self, child: _Child, iteration: int, history: Mapping[StageKey, Manifest]) -> None:
        """Log the datasets of an iteration, what it trained on first: MLflow's table has room for one."""
        keys = [StageKey(iteration, stage) for stage in (UPDATE, EVALUATE, GENERATE)]
        inputs = [
            item for key in keys if key in history for item in datasets_of(self._paths, self._config, key, history[key])
        ]
        if inputs:
            self._client.log_inputs(child.run_id, inputs)
            self._client.log_inputs(self.parent, [item for item in inputs if is_external(item)])

    def _log_files(self, child: _Child, key: StageKey, manifest: Manifest) -> None:
        """Log the tables that are not too large, the decision of the guards, and the manifest, which names them all."""
        limit = self._config.tracking.artifact_megabytes * 1e6
        small = {ref.path for ref in manifest.outputs if (ref.bytes or 0) <= limit}
        folder = self._paths.stage(key)
        tables = [file for file in sorted(folder.glob("*.parquet")) if self._paths.relative(file) in small]
        for file in (*tables, *folder.glob(DECISION), folder / MANIFEST):
            self._client.log_artifact(child.run_id, str(file), artifact_path=key.stage)

    def _child(self, iteration: int, manifest: Manifest) -> _Child:
        if iteration not in self._children:
            run_id = self._create(
                f"{self._run_file.name}/it{iteration:03d}",
                f"{self._run_file.run_id}/it{iteration:03d}",
                "iteration",
                _milliseconds(manifest.started),
                {PARENT_TAG: self.parent, "knowrl.iteration": str(iteration)},
            )
            child = self._children[iteration] = _Child(run_id, {})
            self._introduce(iteration, child)
        return self._children[iteration]

    def _introduce(self, iteration: int, child: _Child) -> None:
        """Log what an iteration ran with; the tag that says so comes last."""
        config = config_of_iteration(self._run_file, iteration)
        log_params(self._client, child.run_id, config, {"iteration": iteration})
        self._client.log_text(child.run_id, yaml.safe_dump(config, sort_keys=False), "config.yaml")
        self._tag(child, INTRODUCED_TAG, "yes")

    def _tag(self, child: _Child, name: str, text: str) -> None:
        if child.tags.get(name) != text:
            self._client.set_tag(child.run_id, name, text)
            child.tags[name] = text

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


def _metrics(key: StageKey, manifest: Manifest) -> list[Metric]:
    """A stage's numbers as points at its iteration, at the time when it finished."""
    values = {
        f"{GLANCE}{short}": manifest.metrics[name]
        for name, short in HEADLINE.get(key.stage, {}).items()
        if name in manifest.metrics
    }
    values |= {f"{key.stage}/{name}": value for name, value in manifest.metrics.items()}
    values[f"{key.stage}/seconds"] = manifest.seconds
    moment = _milliseconds(manifest.finished)
    return [Metric(name, value, moment, key.iteration) for name, value in values.items() if math.isfinite(value)]


def _digest(manifest: Manifest) -> str:
    return sha256_json(manifest.model_dump(mode="json"))


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def attach_to(uri: str, experiment: str, run_id: str, file: Path) -> bool:
    """Log a file to the parent run of a run that is in MLflow already; returns whether it is.

    Args:
        uri: The store.
        experiment: Name of the experiment.
        run_id: The run's id, from ``run.json``.
        file: The file.
    """
    if not has_experiment(uri, experiment):
        return False
    client, found = open_store(uri, experiment)
    runs = search_runs(client, found, f"tags.`{KEY_TAG}` = '{run_id}'")
    for run in runs:
        client.log_artifact(run.info.run_id, str(file))
    return bool(runs)
