"""The best checkpoint as a model version in MLflow's registry, with the alias ``best``.

The version's source is a folder among the artifacts of its iteration's run: a server takes no path outside of its runs.
It holds a card, the metrics and the place of the checkpoint, and, where the config says so, the files themselves.
Nothing is pickled. A version is known by its iteration and the digest of its weights, so none is made twice.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from knowrl_core.config import Config
from knowrl_core.errors import ArtifactError
from knowrl_core.models.export import CARD, METRICS, card_text, model_card, model_facts, model_files
from knowrl_core.report import best_iteration, probe_scores
from knowrl_core.storage.files import sha256_json
from knowrl_core.storage.layout import UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.retention import CHECKPOINT, has_checkpoint
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.seen import SeenFiles
from knowrl_core.storage.verify import check_files

BEST: Final = "best"
"""The alias."""

FOLDER: Final = "model"
"""Artifact folder of a registered iteration."""

POINTER: Final = "checkpoint.json"
"""Says where the checkpoint is."""

RUN_TAG: Final = "knowrl.run_id"
ITERATION_TAG: Final = "knowrl.iteration"
WEIGHTS_TAG: Final = "knowrl.weights"
PLACE_TAG: Final = "knowrl.checkpoint"
MODE_TAG: Final = "knowrl.registry"
STATE_TAG: Final = "knowrl.checkpoint_state"

DESCRIPTION_LIMIT: Final = 5_000
"""Characters that MLflow's database has room for."""

History = Mapping[StageKey, Manifest]


def registered_name(experiment: str, run: str) -> str:
    """Name of a run's registered model: experiment and run, without what MLflow refuses or a URI would need quoted."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', experiment).strip('-.')[:180] or 'knowrl'}-{run}"


class Registry:
    """The registered model of one run.

    Args:
        client: Connected to the store.
        config: The run's config.
        paths: The run.
        run_file: Its identity.
    """

    def __init__(self, client: MlflowClient, config: Config, paths: RunPaths, run_file: RunFile) -> None:
        self._client, self._config, self._paths, self._run_file = client, config, paths, run_file
        self.name = registered_name(config.tracking.experiment, run_file.name)

    def publish(self, history: History, run_of: Callable[[int], str]) -> str:
        """Make the version of the best iteration, if it is not there, and let the alias point to it.

        Args:
            history: The committed stages.
            run_of: The MLflow run of an iteration.

        Returns:
            What is registered, in words.
        """
        mode = self._config.tracking.registry
        if mode == "none":
            return "off (tracking.registry is none)"
        best = best_iteration(history)
        why = self._why_not(history, best)
        mine = self._versions()
        kept = None
        if best is not None and why is None:
            kept = self._version(history, best, run_of(best), mine)
        for version in mine:
            if kept is None or _number(version) != _number(kept):
                self._outdated(version, history, run_of)
        alias = self._aliases().get(BEST)
        if kept is None:
            if alias in [_number(version) for version in mine]:
                self._client.delete_registered_model_alias(self.name, BEST)
            return f"nothing: {why}"
        if alias != _number(kept):
            self._client.set_registered_model_alias(self.name, BEST, kept.version)
        return f"models:/{self.name}@{BEST}, version {kept.version}: iteration {best}"

    def _why_not(self, history: History, best: int | None) -> str | None:
        if best is None:
            return "no iteration was evaluated"
        if best == 0:
            return "the untouched model is the best"
        if StageKey(best, UPDATE) not in history or not has_checkpoint(self._paths, best):
            return f"the checkpoint of the best iteration, {best}, was pruned"
        return None

    def _versions(self) -> list[ModelVersion]:
        """This run's versions, oldest first."""
        found: list[ModelVersion] = []
        token = None
        condition = f"name = '{self.name}' and tags.`{RUN_TAG}` = '{self._run_file.run_id}'"
        while True:
            page = self._client.search_model_versions(condition, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return sorted(found, key=lambda version: int(version.version))

    def _aliases(self) -> dict[str, str]:
        try:
            aliases = self._client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {str(alias): str(version) for alias, version in aliases.items()}

    def _version(self, history: History, iteration: int, run: str, mine: list[ModelVersion]) -> ModelVersion:
        """The version of an iteration, made if it is not there."""
        facts = model_facts(self._paths, self._run_file, history, iteration)
        digest = sha256_json(facts["files"])
        mode = self._config.tracking.registry
        same = [item for item in mine if item.run_id == run and item.tags.get(WEIGHTS_TAG) == digest]
        text = self._description(history, facts)
        if same and same[0].tags.get(MODE_TAG) in (mode, "upload"):
            self._client.update_model_version(self.name, same[0].version, text)
            self._tag(same[0], PLACE_TAG, self._place(iteration))
            return same[0]
        self._log_folder(history, facts, run)
        if same:  # its place is known already, and now its files are there, too
            self._client.update_model_version(self.name, same[0].version, text)
            self._tag(same[0], MODE_TAG, mode)
            return same[0]
        self._make_model()
        tags = {
            RUN_TAG: self._run_file.run_id,
            "knowrl.run": self._run_file.name,
            ITERATION_TAG: str(iteration),
            WEIGHTS_TAG: digest,
            PLACE_TAG: self._place(iteration),
            MODE_TAG: mode,
            STATE_TAG: "kept",
            "knowrl.base_model": str(facts["base_model"])[:500],
            "knowrl.probe_balanced_accuracy": f"{probe_scores(history)[iteration]:.4f}",
        }
        return self._client.create_model_version(
            self.name, f"runs:/{run}/{FOLDER}", run, tags=tags, description=text, await_creation_for=0
        )

    def _make_model(self) -> None:
        try:
            self._client.create_registered_model(
                self.name,
                tags={"knowrl.run": self._run_file.name, "knowrl.experiment": self._config.tracking.experiment},
                description=f"KnowRL run `{self._run_file.name}`: the checkpoints that were the best by balanced "
                f"accuracy on the probe when the run ended. The alias `{BEST}` points to the latest of them.",
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _log_folder(self, history: History, facts: Mapping[str, Any], run: str) -> None:
        """Log card, metrics and place, and in mode ``upload`` every file, after it was compared with its hash."""
        iteration = int(facts["iteration"])
        if self._config.tracking.registry == "upload":
            files = model_files(self._paths, history, iteration)
            problems: list[ArtifactError] = check_files(self._paths, list(files.values()), SeenFiles(None))
            if problems:
                raise problems[0]
            for name, ref in files.items():
                folder = "/".join([FOLDER, *name.split("/")[:-1]])
                self._client.log_artifact(run, str(self._paths.folder / ref.path), folder)
        self._client.log_text(run, model_card(facts), f"{FOLDER}/{CARD}")
        self._client.log_text(run, json.dumps(facts, indent=2) + "\n", f"{FOLDER}/{METRICS}")
        pointer = {"checkpoint": self._place(iteration), "run_id": facts["run_id"], "files": facts["files"]}
        self._client.log_text(run, json.dumps(pointer, indent=2) + "\n", f"{FOLDER}/{POINTER}")

    def _outdated(self, version: ModelVersion, history: History, run_of: Callable[[int], str]) -> None:
        """Say what became of a checkpoint that is not the best any more.

        A version whose iteration was done again is removed, unless somebody gave it an alias of their own.
        """
        iteration = int(version.tags[ITERATION_TAG])
        key = StageKey(iteration, UPDATE)
        files = model_files(self._paths, history, iteration) if key in history else {}
        digest = sha256_json({name: ref.sha256 for name, ref in files.items()})
        if files and version.tags[WEIGHTS_TAG] == digest and version.run_id == run_of(iteration):
            self._tag(version, STATE_TAG, "kept" if has_checkpoint(self._paths, iteration) else "pruned")
            return
        held = {alias for alias, number in self._aliases().items() if number == _number(version)} - {BEST}
        if held:
            self._tag(version, STATE_TAG, "replaced")
        else:
            self._client.delete_model_version(self.name, version.version)

    def _tag(self, version: ModelVersion, name: str, text: str) -> None:
        if version.tags.get(name) != text:
            self._client.set_model_version_tag(self.name, version.version, name, text)

    def _place(self, iteration: int) -> str:
        """Where the checkpoint is, as people can use it."""
        relative = self._paths.relative(self._paths.file(StageKey(iteration, UPDATE), CHECKPOINT))
        return f"{self._paths.shown}/{relative}"

    def _description(self, history: History, facts: Mapping[str, Any]) -> str:
        iteration = int(facts["iteration"])
        scores = probe_scores(history)
        low, high = (facts["intervals"].get("probe/balanced_accuracy") or (None, None))[:2]
        between = f" (95 % interval {low:.3f} to {high:.3f})" if low is not None and high is not None else ""
        start = f"; the untouched model has {scores[0]:.3f}" if 0 in scores else ""
        if self._config.tracking.registry == "upload":
            folder = f'mlflow.artifacts.download_artifacts("models:/{self.name}@{BEST}")'
            use = ["import mlflow", "from transformers import AutoModelForCausalLM", ""]
        else:
            folder = f'MlflowClient().get_model_version_by_alias("{self.name}", "{BEST}").tags["{PLACE_TAG}"]'
            use = ["from mlflow import MlflowClient", "from transformers import AutoModelForCausalLM", ""]
        use += [f"folder = {folder}", "model = AutoModelForCausalLM.from_pretrained(folder)"]
        head = (
            f"Balanced accuracy on the probe **{scores[iteration]:.3f}**{between}{start}. Iteration {iteration} of run "
            f"`{self._run_file.name}`, the best of {len(scores)} evaluated ones.\n\n"
        )
        return (head + card_text(facts, use, config=False))[:DESCRIPTION_LIMIT]


def _number(version: ModelVersion) -> str:
    """A version's number as aliases name it; some stores give it as an int."""
    return str(version.version)
