"""MLflow: a parent run with metrics by iteration, and a child run an iteration, from the manifests.

Every number comes from a committed manifest, so what is missing can be logged later, and a tag with the stage's
signature tells what has been logged: nothing is counted twice, however often a run is resumed.
"""

import math
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from knowrl_core.config import Config
from knowrl_core.storage.layout import EVALUATE, RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.run_file import RunFile
from tasks.progress import Reporter

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_TAG = "mlflow.parentRunId"
KEY_TAG = "knowrl.key"


def tracking_uri(config: Config, root: Path) -> str:
    """The MLflow store: the config's, ``MLFLOW_TRACKING_URI``, or a SQLite file in the artifact root."""
    if config.tracking.uri != "auto":
        return config.tracking.uri
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


class Tracker:
    """Logs one run. A failure of MLflow is reported once and never fails a stage; the next start catches up.

    Args:
        config: The run's config.
        paths: The run.
        run_file: Its identity.
        reporter: Told of failures.
    """

    def __init__(self, config: Config, paths: RunPaths, run_file: RunFile, reporter: Reporter) -> None:
        self._config, self._paths, self._run_file, self._reporter = config, paths, run_file, reporter
        self.uri = tracking_uri(config, paths.root)
        self._client: MlflowClient | None = None
        self._parent = ""
        self._children: dict[int, str] = {}
        self._off = not config.tracking.enabled

    def open(self, history: Mapping[StageKey, Manifest]) -> None:
        """Find or make the parent run, and log what is committed but not logged yet."""
        try:
            if not self._off:
                self._open()
        except Exception as error:
            self._give_up(error)
        for key, manifest in history.items():
            self.log_stage(key, manifest)

    def log_stage(self, key: StageKey, manifest: Manifest) -> None:
        """Log one committed stage to the iteration's run and to the parent."""
        if self._off:
            return
        try:
            self._log_stage(key, manifest)
        except Exception as error:
            self._give_up(error)

    def close(self, outcome: str) -> None:
        """Say how the attempt ended."""
        if self._off or self._client is None:
            return
        status = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}[outcome]
        try:
            self._client.set_terminated(self._parent, status)
        except Exception as error:
            self._give_up(error)

    def _open(self) -> None:
        import mlflow
        from mlflow import MlflowClient

        mlflow.set_tracking_uri(self.uri)
        client = MlflowClient(self.uri)
        self._paths.root.mkdir(parents=True, exist_ok=True)
        # Two processes that make the tables of one new SQLite file at once break it for good.
        with FileLock(self._paths.root / ".mlflow.lock"):
            experiment = self._experiment(client)
        found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{self._run_file.run_id}'", max_results=1)
        if found:
            self._parent = found[0].info.run_id
            client.update_run(self._parent, status="RUNNING")
        else:
            tags = {KEY_TAG: self._run_file.run_id, "knowrl.run": self._run_file.name, "knowrl.kind": "run"}
            self._parent = client.create_run(experiment, run_name=self._run_file.name, tags=tags).info.run_id
            self._log_params(client, self._parent, self._run_file.config)
        self._experiment_id, self._client = experiment, client
        client.log_dict(self._parent, self._run_file.model_dump(mode="json"), "run.json")

    def _experiment(self, client: "MlflowClient") -> str:
        name = self._config.tracking.experiment
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")
        location = (self._paths.root / "mlartifacts").as_uri() if local else None
        return str(client.create_experiment(name, artifact_location=location))

    def _log_stage(self, key: StageKey, manifest: Manifest) -> None:
        from mlflow.entities import Metric, RunTag

        assert self._client  # noqa: S101 - off is set wherever opening failed
        child = self._child(key.iteration)
        tag = f"stage.{key.stage}"
        tags = self._client.get_run(child).data.tags
        if tags.get(tag) == manifest.signature:
            return
        # A fixed time and step a point: logging it again after a crash overwrites it.
        moment = int(datetime.fromisoformat(manifest.finished).timestamp() * 1000)
        values = {f"{key.stage}/{name}": value for name, value in manifest.metrics.items() if math.isfinite(value)}
        values[f"{key.stage}/seconds"] = manifest.seconds
        metrics = [Metric(name, value, moment, key.iteration) for name, value in values.items()]
        folder = self._paths.stage(key)
        for file in sorted(folder.glob("*.parquet")):
            self._client.log_artifact(child, str(file), artifact_path=key.stage)
        self._client.log_artifact(child, str(folder / "manifest.json"), artifact_path=key.stage)
        self._client.log_batch(self._parent, metrics=metrics)
        self._client.log_batch(child, metrics=metrics, tags=[RunTag(tag, manifest.signature)])
        if key.stage == EVALUATE:
            self._client.set_terminated(child, "FINISHED", end_time=moment)

    def _child(self, iteration: int) -> str:
        assert self._client  # noqa: S101 - see _log_stage
        if iteration not in self._children:
            name = f"{self._run_file.name}/it{iteration:03d}"
            key = f"{self._run_file.run_id}/it{iteration:03d}"
            found = self._client.search_runs([self._experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
            if found:
                self._children[iteration] = found[0].info.run_id
            else:
                tags = {
                    KEY_TAG: key,
                    PARENT_TAG: self._parent,
                    "knowrl.run": self._run_file.name,
                    "knowrl.kind": "iteration",
                    "knowrl.iteration": str(iteration),
                }
                child = self._client.create_run(self._experiment_id, run_name=name, tags=tags).info.run_id
                self._client.log_param(child, "iteration", iteration)
                self._log_params(self._client, child, self._config.model_dump(mode="json"))
                self._children[iteration] = child
        return self._children[iteration]

    @staticmethod
    def _log_params(client: "MlflowClient", run: str, config: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:500]) for name, value in flatten(config)]
        rate = config["rl"]["learning_rate"]
        params.append(Param("rl.log10_learning_rate", f"{math.log10(rate):.4f}"))  # the UI rounds 1e-6 to 0
        for start in range(0, len(params), 100):  # MLflow's limit for a batch
            client.log_batch(run, params=params[start : start + 100])

    def _give_up(self, error: Exception) -> None:
        self._off = True
        self._reporter.warning(
            f"MLflow ({self.uri}) does not take the log: {type(error).__name__}: {str(error)[:300]}. The run goes on; "
            "what is missing is logged at the next `knowrl resume`."
        )


def flatten(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` as ``[("a.b", 1)]``."""
    pairs: list[tuple[str, Any]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
