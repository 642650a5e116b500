"""Judge labelled sets with one policy, chunk by chunk."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from knowrl_core.config import Config
from knowrl_core.engines import GenerationEngine
from knowrl_core.evaluation import BenchmarkTask, predict
from knowrl_core.storage.layout import EVALUATE
from knowrl_core.storage.schemas import PredictionRecord, VerdictRecord
from knowrl_core.verdicts import expected_steps, judge_tasks
from knowrl_core.worker import EngineSpec, WorkerPool
from tasks.prepare import Inputs
from tasks.reporter import Reporter


@contextmanager
def engine_of(config: Config, inputs: Inputs) -> Iterator[tuple[GenerationEngine, str]]:
    """The engine of a model without a run, in a worker that ends with the context; and the model's name as a policy.

    Args:
        config: Model and engine.
        inputs: The model's folder and hash.
    """
    with TemporaryDirectory(prefix="knowrl-") as name:
        folder = Path(name)
        worker = WorkerPool.of(config, folder / "worker.log")
        try:
            policy = f"{inputs.model.name}@{inputs.model.sha256[:12]}"
            spec = EngineSpec(
                folder=inputs.model.path,
                policy=policy,
                device=config.model.device,
                engine=config.engine,
                log=folder / "vllm.log",
            )
            yield worker.engine(spec), policy
        finally:
            worker.close()


class SetJudge:
    """Predicts tasks of labelled sets.

    Each call asks the engine by itself: what a task is batched with changes its probabilities by float noise, and the
    numbers of a set must not depend on which others are measured beside it.

    Args:
        engine: The policy's engine.
        config: The config.
        inputs: Prompts.
        policy: Name of the policy, for the lineage.
        reporter: Told of the progress, in prompts.
        total: Prompts that all calls together will ask.
    """

    def __init__(
        self, engine: GenerationEngine, config: Config, *, inputs: Inputs, policy: str, reporter: Reporter, total: int
    ) -> None:
        self._engine, self._config, self._inputs, self._policy = engine, config, inputs, policy
        self._reporter, self._total, self._done = reporter, total, 0
        self._name = engine.name

    def __call__(self, dataset: str, tasks: Sequence[BenchmarkTask]) -> list[PredictionRecord]:
        """Predict tasks of a set."""
        k = self._config.evaluation.k
        return predict(dataset, tasks, self._verdicts(dataset, tasks, views=self._config.verdict.views, k=k), k=k)

    def by_view(
        self, dataset: str, tasks: Sequence[BenchmarkTask], views: tuple[str, ...]
    ) -> list[list[PredictionRecord]]:
        """Predict tasks in each view by itself: by its exact probability, or in free mode by k verdicts.

        Args:
            dataset: Name of the set; the predictions of a view carry it as ``dataset:view``.
            tasks: The tasks.
            views: The views.
        """
        k = self._config.evaluation.k if self._config.verdict.mode == "free" else 1
        verdicts = self._verdicts(f"{dataset}:views", tasks, views=views, k=k * len(views))
        predictions = []
        for view in views:
            own = [replace(row, sample=row.sample // len(views)) for row in verdicts if row.view == view]
            predictions.append(predict(f"{dataset}:{view}", tasks, own, k=k))
        return predictions

    def _verdicts(
        self, dataset: str, tasks: Sequence[BenchmarkTask], *, views: tuple[str, ...], k: int
    ) -> list[VerdictRecord]:
        config = self._config.verdict.model_copy(update={"views": views})
        before = self._done
        records = judge_tasks(
            self._engine,
            [(f"{dataset}/{task.id}", task.task) for task in tasks],
            k=k,
            config=config,
            prompts=self._inputs.prompts,
            run_seed=self._config.run.seed,
            iteration=0,  # the noise depends on the task alone: an unchanged policy gives unchanged votes
            stage=EVALUATE,
            engine_name=self._name,
            policy=self._policy,
            progress=lambda now, _: self._reporter.advance(before + now, self._total),
        )
        self._done += expected_steps(len(tasks), config, k=k)
        return [replace(record, task_id=record.task_id.removeprefix(f"{dataset}/")) for record in records]
