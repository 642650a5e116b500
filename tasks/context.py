"""A run that is open for writing: everything that the stages share."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from knowrl_core.config import Config
from knowrl_core.engines import GenerationEngine
from knowrl_core.engines.counted import CountedEngine
from knowrl_core.engines.kept import KeptEngine
from knowrl_core.errors import ArtifactError, StageError
from knowrl_core.guards import DECISION, Decision, parent_of, read_decision
from knowrl_core.prompts import Template
from knowrl_core.storage.layout import EVALUATE, UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import FileRef, Manifest
from knowrl_core.storage.retention import CHECKPOINT, has_checkpoint
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.schemas import Record
from knowrl_core.storage.tables import REPAIR_HINT, read_table
from knowrl_core.storage.verify import EXTERNAL
from knowrl_core.worker import EngineSpec, WorkerPool
from tasks.prepare import Inputs
from tasks.reporter import Reporter
from tasks.starting import is_warmup
from tasks.tracking import Tracker

R = TypeVar("R", bound=Record)


class RunContext:
    """An open run.

    A plain class on purpose: Prefect looks into dataclasses and models that are passed to a task.
    """

    def __init__(
        self,
        *,
        config: Config,
        inputs: Inputs,
        paths: RunPaths,
        run_file: RunFile,
        history: dict[StageKey, Manifest],
        worker: WorkerPool,
        tracker: Tracker,
        reporter: Reporter,
    ) -> None:
        self.config, self.inputs, self.paths, self.run_file = config, inputs, paths, run_file
        self.history, self.worker, self.tracker, self.reporter = history, worker, tracker, reporter
        self.stopped = False
        """A guard ended the run before its last iteration."""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.run.seed

    def read(self, key: StageKey, name: str, record: type[R]) -> list[R]:
        """Read a committed table."""
        return read_table(self.paths.file(key, name), record)

    def ref(self, key: StageKey, name: str) -> FileRef:
        """A committed file as an input of another stage.

        Raises:
            StageError: That stage is not committed or has no such file.
        """
        path = self.paths.relative(self.paths.file(key, name))
        for ref in self.history[key].outputs if key in self.history else ():
            if ref.path == path:
                return FileRef(path=path, sha256=ref.sha256, rows=ref.rows)
        raise StageError(f"{path} is not a committed artifact")

    def parent(self, iteration: int) -> int:
        """The iteration whose checkpoint, optimizer state and pool an iteration starts from.

        That is the one before it, unless a guard rolled back to an earlier one. 0 stands for the initial model, without
        optimizer state and pool; iteration 0 itself starts from there.
        """
        return parent_of(self.paths, iteration)

    def decision(self, iteration: int) -> Decision:
        """What followed from an iteration's evaluation."""
        return read_decision(self.paths, iteration)

    def decision_refs(self, iteration: int) -> list[FileRef]:
        """The decision that an iteration starts from as an input; iteration 0 starts from none."""
        return [self.ref(StageKey(iteration - 1, EVALUATE), DECISION)] if iteration else []

    def is_warmup(self, iteration: int) -> bool:
        """Whether an iteration is the warm-up."""
        return is_warmup(self.config, iteration)

    def checkpoint_refs(self, iteration: int) -> list[FileRef]:
        """The policy after an iteration as inputs; iteration 0 is the initial model."""
        if iteration == 0:
            return [FileRef(path=f"{EXTERNAL}model", sha256=self.inputs.model.sha256)]
        key = StageKey(iteration, UPDATE)
        prefix = self.paths.relative(self.paths.file(key, CHECKPOINT)) + "/"
        return [
            FileRef(path=ref.path, sha256=ref.sha256)
            for ref in self.history[key].outputs
            if ref.path.startswith(prefix)
        ]

    def pin_refs(self, *names: str) -> list[FileRef]:
        """Pinned files from outside the run as inputs."""
        return [FileRef(path=f"{EXTERNAL}{name}", sha256=self.inputs.pins[name]) for name in names]

    def template_refs(self, templates: Sequence[Template]) -> list[FileRef]:
        """Prompt templates as inputs."""
        return [FileRef(path=f"{EXTERNAL}prompts/{item.name}", sha256=item.sha256) for item in templates]

    def policy_folder(self, iteration: int) -> Path:
        """Folder of the policy after an iteration; iteration 0 is the initial model."""
        if iteration == 0:
            return self.inputs.model.path
        folder = self.paths.file(StageKey(iteration, UPDATE), CHECKPOINT)
        if not has_checkpoint(self.paths, iteration):
            raise ArtifactError(f"{folder}: the checkpoint was pruned, expected one to go on from", hint=REPAIR_HINT)
        return folder

    def optimizer_folder(self, iteration: int) -> Path | None:
        """The checkpoint whose optimizer state and schedule position go on after an iteration.

        None after iteration 0, and after a warm-up: its moments are those of another loss, and the schedule of the
        policy gradient begins with the first step that follows it.
        """
        return None if iteration == 0 or self.is_warmup(iteration) else self.policy_folder(iteration)

    def policy_name(self, iteration: int) -> str:
        """The policy as the lineage names it: what it is, and the sha256 of its weights."""
        if iteration == 0:
            return f"{self.inputs.model.name}@{self.inputs.model.sha256[:12]}"
        # Not those of an average or of adapters, which lie in folders of the checkpoint.
        own = f"*/{CHECKPOINT}/model*.safetensors"
        weights = [ref for ref in self.checkpoint_refs(iteration) if fnmatch(ref.path, own)]
        return f"it{iteration:03d}@{weights[0].sha256[:12]}"

    def engine_spec(self, iteration: int) -> EngineSpec:
        """What the worker is to load for the policy after an iteration."""
        return EngineSpec(
            folder=self.policy_folder(iteration),
            policy=self.policy_name(iteration),
            device=self.config.model.device,
            engine=self.config.engine,
            log=self.paths.logs / "vllm.log",
            adapter_rank=self.config.rl.lora.rank,
        )

    def engine(self, key: StageKey, spec: EngineSpec) -> GenerationEngine:
        """A generation engine that keeps its answers until a stage is committed.

        Args:
            key: The stage.
            spec: The policy to load, such as :meth:`engine_spec` gives.
        """
        identity = {
            **spec.engine.arithmetic(),
            "token_budget": spec.engine.token_budget,  # batches, too: the last bit counts here
            "device": spec.device,
            "policy": spec.policy,
        }
        return KeptEngine(
            CountedEngine(self.worker.engine(spec), self.reporter.add_tokens),
            self.paths.kept(key),
            shard=self.config.engine.shard,
            identity=identity,
            on_found=lambda found, of: self.reporter.message(f"{key}: {found} of {of} answers were there already"),
        )
