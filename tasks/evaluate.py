"""Stage ``evaluate``: is the model consistent with itself, and does it agree with the truth?"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from knowrl_core.config import Config
from knowrl_core.evaluation import (
    EvalTask,
    consensus_metrics,
    extrinsic_metrics,
    intrinsic_metrics,
    predict,
    take_evenly,
)
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import CONSENSUS, EVALUATE, GENERATE, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.schemas import Candidate, ConsensusRecord, MetricRecord, PredictionRecord
from knowrl_core.verdicts import expected_steps, judge_tasks
from knowrl_core.worker import EngineSpec, ModelWorker, RemoteEngine
from tasks.consensus import TABLE
from tasks.context import RunContext
from tasks.generate import CANDIDATES
from tasks.prepare import Inputs, prepare
from tasks.progress import Reporter
from tasks.stage import Stage, engine_slice, stage_task, verdict_slice

INTRINSIC = "intrinsic.parquet"
EXTRINSIC = "extrinsic.parquet"
PREDICTIONS = "predictions.parquet"
PROBE, FROZEN, FRESH = "probe", "frozen", "fresh"


def _config(config: Config) -> dict[str, Any]:
    return {
        "evaluation": config.evaluation.model_dump(mode="json"),
        "verdict": verdict_slice(config),
        "engine": engine_slice(config),
    }


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    refs = ctx.pin_refs("files.probe")
    refs += ctx.template_refs([ctx.inputs.prompts.verdict(ctx.config.verdict.mode)])
    refs += ctx.checkpoint_refs(key.iteration)
    refs.append(ctx.ref(StageKey(0, GENERATE), CANDIDATES))
    if key.iteration:
        refs.append(ctx.ref(StageKey(key.iteration, CONSENSUS), TABLE))
    return refs


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """The policy on the probe (truth) and on the frozen set (agreement); agreement on this iteration's fresh tasks."""
    candidates = ctx.read(StageKey(0, GENERATE), CANDIDATES, Candidate)
    frozen = take_evenly(
        [EvalTask(item.id, item.task, item.intended) for item in candidates if item.kept],
        ctx.config.evaluation.frozen_limit,
    )
    probe = probe_tasks(ctx.inputs, ctx.config)
    predictions = predict_sets(
        ctx.engine(key.iteration),
        {PROBE: probe, FROZEN: frozen},
        ctx.config,
        inputs=ctx.inputs,
        policy=ctx.policy_name(key.iteration),
        reporter=ctx.reporter,
    )
    extrinsic = extrinsic_metrics(PROBE, predictions[PROBE])
    intrinsic = intrinsic_metrics(FROZEN, predictions[FROZEN])
    if key.iteration:
        consensus = ctx.read(StageKey(key.iteration, CONSENSUS), TABLE, ConsensusRecord)
        intrinsic += consensus_metrics(FRESH, consensus)
    else:  # the frozen set is what the initial model wrote just now
        intrinsic += intrinsic_metrics(FRESH, predictions[FROZEN])
    writer.write(EXTRINSIC, MetricRecord, extrinsic)
    writer.write(INTRINSIC, MetricRecord, intrinsic)
    writer.write(PREDICTIONS, PredictionRecord, [row for rows in predictions.values() for row in rows])
    writer.metrics |= {
        f"{row.dataset}/{row.metric}": row.value for row in extrinsic + intrinsic if row.value is not None
    }


def evaluate_alone(config: Config, reporter: Reporter) -> tuple[dict[str, float | None], list[PredictionRecord]]:
    """Evaluate a model on the probe without a run, with the numbers that iteration 0 of a run would have."""
    inputs = prepare(config)
    with TemporaryDirectory(prefix="knowrl-") as folder:
        worker = ModelWorker(Path(folder) / "worker.log", timeout=config.orchestration.stage_timeout)
        try:
            policy = f"{inputs.model.name}@{inputs.model.sha256[:12]}"
            spec = EngineSpec(folder=inputs.model.path, policy=policy, device=config.model.device, engine=config.engine)
            predictions = predict_sets(
                worker.engine(spec),
                {PROBE: probe_tasks(inputs, config)},
                config,
                inputs=inputs,
                policy=policy,
                reporter=reporter,
            )[PROBE]
        finally:
            worker.close()
    return {row.metric: row.value for row in extrinsic_metrics(PROBE, predictions)}, predictions


def probe_tasks(inputs: Inputs, config: Config) -> list[EvalTask]:
    """The probe, cut to ``evaluation.probe_limit``."""
    return take_evenly(
        [EvalTask(task.id, task.task, task.label) for task in inputs.probe], config.evaluation.probe_limit
    )


def predict_sets(
    engine: RemoteEngine,
    sets: dict[str, list[EvalTask]],
    config: Config,
    *,
    inputs: Inputs,
    policy: str,
    reporter: Reporter,
) -> dict[str, list[PredictionRecord]]:
    """Judge labelled sets with one policy.

    Each set is asked by itself: what a task is batched with changes its probabilities by float noise, and the numbers
    of a set must not depend on which others are measured beside it.
    """
    k, name = config.evaluation.k, engine.name
    total = sum(expected_steps(len(rows), config.verdict, k=k) for rows in sets.values())
    done = 0
    predictions = {}
    for dataset, rows in sets.items():
        records = judge_tasks(
            engine,
            [(f"{dataset}/{row.id}", row.task) for row in rows],
            k=k,
            config=config.verdict,
            prompts=inputs.prompts,
            run_seed=config.run.seed,
            iteration=0,  # the noise depends on the task alone: an unchanged policy gives unchanged votes
            stage=EVALUATE,
            engine_name=name,
            policy=policy,
            progress=lambda now, _, before=done: reporter.advance(before + now, total),  # type: ignore[misc]
        )
        done += expected_steps(len(rows), config.verdict, k=k)
        own = [replace(record, task_id=record.task_id.removeprefix(f"{dataset}/")) for record in records]
        predictions[dataset] = predict(dataset, rows, own, k=k)
    return predictions


evaluate = stage_task(Stage(name=EVALUATE, config=_config, inputs=_inputs, body=_body))
