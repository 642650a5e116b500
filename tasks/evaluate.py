"""Stage ``evaluate``: is the model consistent with itself, and does it agree with the truth?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knowrl_core.config import Config
from knowrl_core.evaluation import (
    Assessment,
    EvalTask,
    Judge,
    OpenSet,
    PredictionSink,
    assess,
    consensus_metrics,
    flip_metrics,
    from_seeds,
    intrinsic_metrics,
    take_evenly,
    views_around,
)
from knowrl_core.evaluation.compare import Baseline
from knowrl_core.evaluation.entropy import entropy_record
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import (
    CONSENSUS,
    CONSENSUS_TABLE,
    EVALUATE,
    EXTRINSIC_TABLE,
    GENERATE,
    PREDICTIONS_TABLE,
    UPDATE,
    StageKey,
)
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.schemas import Candidate, ConsensusRecord, MetricRecord, PredictionRecord
from knowrl_core.verdicts import expected_steps
from tasks.context import RunContext
from tasks.generate import CANDIDATES
from tasks.guarding import ask_guards
from tasks.judging import SetJudge, engine_of
from tasks.labelled_sets import FROZEN, PROBE, benchmark_refs, configured_sets
from tasks.prepare import Inputs, prepare
from tasks.reporter import Reporter
from tasks.stage import Stage, engine_slice, stage_task, verdict_slice
from tasks.update import ROLLOUTS, TRAINING

INTRINSIC = "intrinsic.parquet"
FRESH = "fresh"


def _config(config: Config) -> dict[str, Any]:
    return {
        "evaluation": config.evaluation.model_dump(mode="json"),
        "verdict": verdict_slice(config),
        "guards": config.guards.model_dump(mode="json"),
        "engine": engine_slice(config),
    }


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    refs = ctx.pin_refs("files.probe")
    refs += benchmark_refs(ctx.config)
    refs += ctx.template_refs([ctx.inputs.prompts.verdict(ctx.config.verdict.mode)])
    refs += ctx.checkpoint_refs(key.iteration)
    refs.append(ctx.ref(StageKey(0, GENERATE), CANDIDATES))
    if key.iteration:  # what the guards look at
        refs += [*ctx.decision_refs(key.iteration)]
        refs += [ctx.ref(StageKey(key.iteration, UPDATE), name) for name in (TRAINING, ROLLOUTS)]
    if key.iteration and not ctx.is_warmup(key.iteration):
        refs.append(ctx.ref(StageKey(key.iteration, CONSENSUS), CONSENSUS_TABLE))
    return refs


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """The policy on the labelled sets (truth) and on the frozen set (agreement); then the guards are asked."""
    config = ctx.config
    probe, others = probe_set(ctx.inputs, config), configured_sets(config)
    candidates = ctx.read(StageKey(0, GENERATE), CANDIDATES, Candidate)
    frozen = take_evenly(
        [EvalTask(item.id, item.task, item.intended) for item in candidates if item.kept],
        config.evaluation.frozen_limit,
    )
    views = views_around(config.verdict.views[0])
    asked_again = take_evenly(frozen, config.evaluation.view_tasks) if config.evaluation.view_tasks else []
    tasks = probe.size + sum(item.size for item in others) + len(frozen)
    total = _prompts(tasks, config) + len(asked_again) * len(views.names)
    judge = SetJudge(
        ctx.engine(key, ctx.engine_spec(key.iteration)),
        config,
        inputs=ctx.inputs,
        policy=ctx.policy_name(key.iteration),
        reporter=ctx.reporter,
        total=total,
    )
    with PredictionSink(writer.path(PREDICTIONS_TABLE)) as sink:
        extrinsic = _measure_probe(probe, judge, sink, config)
        extrinsic += [record for item in others for record in _assess(item, judge, sink, config).records]
        predictions = judge(FROZEN, frozen)
        sink.write(predictions)
        intrinsic = intrinsic_metrics(FROZEN, predictions)
        if config.evaluation.view_tasks:
            by_view = judge.by_view(FROZEN, asked_again, views.names)
            for rows in by_view:
                sink.write(rows)
            said = [[row.predicted for row in rows] for rows in zip(*by_view, strict=True)]
            intrinsic += flip_metrics(FROZEN, views, said)
    if key.iteration == 0:  # the frozen set is what the initial model wrote just now
        intrinsic += intrinsic_metrics(FRESH, predictions)
    elif not ctx.is_warmup(key.iteration):  # which has no tasks of its own
        consensus = ctx.read(StageKey(key.iteration, CONSENSUS), CONSENSUS_TABLE, ConsensusRecord)
        intrinsic += consensus_metrics(FRESH, consensus)
    writer.write(EXTRINSIC_TABLE, MetricRecord, extrinsic)
    writer.write(INTRINSIC, MetricRecord, intrinsic)
    writer.metrics |= {
        f"{row.dataset}/{row.metric}": row.value
        for row in extrinsic + intrinsic
        if row.value is not None and row.predictor == "model"
    }
    ask_guards(ctx, key, writer)


def evaluate_model(
    config: Config,
    sets: Sequence[OpenSet],
    reporter: Reporter,
    *,
    out: Path | None = None,
    baselines: Mapping[str, Baseline] | None = None,
) -> list[Assessment]:
    """Evaluate a model on labelled sets without a run, with the numbers that iteration 0 of a run would have.

    Args:
        config: Model, prompts, verdicts and engine.
        sets: The sets.
        reporter: Told of the progress, in prompts.
        out: Takes the predictions of all sets.
        baselines: Another model's predictions by set; sets without any are not compared.
    """
    inputs = prepare(config)
    with PredictionSink(out) as sink, engine_of(config, inputs) as (engine, policy):
        total = _prompts(sum(item.size for item in sets), config)
        judge = SetJudge(engine, config, inputs=inputs, policy=policy, reporter=reporter, total=total)
        return [_assess(item, judge, sink, config, (baselines or {}).get(item.name)) for item in sets]


def _measure_probe(probe: OpenSet, judge: SetJudge, sink: PredictionSink, config: Config) -> list[MetricRecord]:
    """The metrics of the probe, and the entropy of its verdicts beside them, which a guard looks at."""
    seen: list[PredictionRecord] = []

    def watched(dataset: str, tasks: Sequence[EvalTask]) -> list[PredictionRecord]:
        rows = judge(dataset, tasks)
        seen.extend(rows)
        return rows

    return [*_assess(probe, watched, sink, config).records, entropy_record(PROBE, seen)]


def probe_set(inputs: Inputs, config: Config) -> OpenSet:
    """The probe, cut to ``evaluation.probe_limit``."""
    whole = from_seeds(inputs.probe)
    tasks = take_evenly(whole, config.evaluation.probe_limit)
    return OpenSet(PROBE, tasks, len(tasks), len(whole), Counter(), whole)


def _assess(
    item: OpenSet, judge: Judge, sink: PredictionSink, config: Config, baseline: Baseline | None = None
) -> Assessment:
    return assess(
        item, judge, sink=sink, resamples=config.evaluation.bootstrap, seed=config.run.seed, baseline=baseline
    )


def _prompts(tasks: int, config: Config) -> int:
    return expected_steps(tasks, config.verdict, k=config.evaluation.k)


STAGE = Stage(name=EVALUATE, config=_config, inputs=_inputs, body=_body)
evaluate = stage_task(STAGE)
