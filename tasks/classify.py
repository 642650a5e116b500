"""Stage ``classify``: self-assessment.

Beside the candidates it judges what the consensus needs, as the config asks for it: the anchors (``anchors.parquet``),
and the candidates once more by the teacher (``teacher.parquet``). Neither file is there otherwise. A later change of
``consensus.reward.votes`` or ``consensus.anchors`` applies to an iteration only as far as this stage is not done.
"""

from collections.abc import Sequence
from typing import Any

from knowrl_core.config import Config
from knowrl_core.consensus import anchor_tasks, draw_anchors
from knowrl_core.labels import FEASIBLE, UNPARSEABLE
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import CLASSIFY, GENERATE, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.schemas import Candidate, VerdictRecord
from knowrl_core.verdicts import expected_steps, judge_tasks
from knowrl_core.verdicts.channel import CHANNEL_VOTES, Channel, channel_steps, judge_by_channel
from knowrl_core.worker import EngineSpec
from tasks.context import RunContext
from tasks.generate import CANDIDATES, held_out
from tasks.labelled_sets import benchmark_refs
from tasks.stage import Stage, engine_slice, finite_mean, stage_task, verdict_slice
from tasks.teacher import TEACHER, teacher_refs, teacher_spec

VERDICTS = "verdicts.parquet"
ANCHORS = "anchors.parquet"
TEACHER_VERDICTS = "teacher.parquet"


def _config(config: Config) -> dict[str, Any]:
    share = config.consensus.anchors.share
    held_out = sorted(item.name for item in config.evaluation.benchmarks)
    return {
        "verdict": verdict_slice(config),
        "votes": config.consensus.reward.votes,
        **_channel_slice(config),
        "anchors": {"share": share, "held_out": held_out if share else []},
        "engine": engine_slice(config),
    }


def _channel_slice(config: Config) -> dict[str, Any]:
    """What verdicts by likelihood depend on; nothing where there are none, so that other runs keep their signatures."""
    if not _asks_channel(config):
        return {}
    # How introspection samples changes no likelihood.
    channel = _channel(config)
    return {"channel": {"draws": channel.draws, "shots": channel.shots}}


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    parent = ctx.parent(key.iteration)
    refs = [
        ctx.ref(StageKey(key.iteration, GENERATE), CANDIDATES),
        *ctx.template_refs([ctx.inputs.prompts.verdict(ctx.config.verdict.mode)]),
        *ctx.decision_refs(key.iteration),
        *ctx.checkpoint_refs(parent),
        *teacher_refs(ctx, parent),
    ]
    if ctx.config.consensus.anchors.share:
        seeds = () if _asks_channel(ctx.config) else ("files.feasible", "files.infeasible")
        refs += [*ctx.pin_refs(*seeds, "files.probe"), *benchmark_refs(ctx.config)]
        refs.append(ctx.ref(StageKey(0, GENERATE), CANDIDATES))
    return refs


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """The model judges every candidate k times, blind to the label that it was generated under."""
    candidates = ctx.read(StageKey(key.iteration, GENERATE), CANDIDATES, Candidate)
    tasks = [(item.id, item.task) for item in candidates if item.kept]
    parent = ctx.parent(key.iteration)
    share = ctx.config.consensus.anchors.share
    anchors = _anchors(ctx, key, len(tasks)) if share else []
    teacher = teacher_spec(ctx, parent)
    taught = 0 if teacher is None else _teacher_steps(ctx.config, len(tasks))
    judge = _Judge(ctx, key, total=expected_steps(len(tasks) + len(anchors), ctx.config.verdict) + taught)
    verdicts = judge(tasks, ctx.engine_spec(parent), CLASSIFY)
    writer.write(VERDICTS, VerdictRecord, verdicts)
    writer.metrics |= {"tasks": len(tasks), "verdicts": len(verdicts)}
    writer.metrics |= {
        **finite_mean("called_feasible", [item.verdict == FEASIBLE for item in verdicts]),
        **finite_mean("unparseable", [item.verdict == UNPARSEABLE for item in verdicts]),
        **finite_mean("label_mass/mean", [item.label_mass for item in verdicts]),
        **finite_mean("p_infeasible/mean", [item.p_infeasible for item in verdicts]),
    }
    if share:
        rows = judge(anchors, ctx.engine_spec(parent), CLASSIFY)
        writer.write(ANCHORS, VerdictRecord, rows)
        writer.metrics |= {
            "anchors/tasks": len(anchors),
            **finite_mean("anchors/called_feasible", [item.verdict == FEASIBLE for item in rows]),
        }
    if teacher:  # last, since it takes the policy's place in the worker
        rows = judge.by_channel(tasks, teacher) if _asks_channel(ctx.config) else judge(tasks, teacher, TEACHER)
        writer.write(TEACHER_VERDICTS, VerdictRecord, rows)
        writer.metrics |= {
            **finite_mean("teacher/called_feasible", [item.verdict == FEASIBLE for item in rows]),
            **finite_mean("teacher/p_infeasible/mean", [item.p_infeasible for item in rows]),
        }


def _anchors(ctx: RunContext, key: StageKey, candidates: int) -> list[tuple[str, str]]:
    measured = [text for tasks in held_out(ctx, key).values() for _, text in tasks]
    drawn = draw_anchors(
        ctx.inputs.seeds,
        share=ctx.config.consensus.anchors.share,
        candidates=candidates,
        run_seed=ctx.seed,
        iteration=key.iteration,
        held_out=measured,
    )
    return anchor_tasks(drawn)


class _Judge:
    """Judges one set of tasks after another.

    Each is asked by itself: what a task is batched with changes its probabilities by float noise, and the candidates'
    verdicts must not depend on the anchors.
    """

    def __init__(self, ctx: RunContext, key: StageKey, *, total: int) -> None:
        self._ctx, self._key = ctx, key
        self._done, self._total = 0, total

    def __call__(self, tasks: Sequence[tuple[str, str]], spec: EngineSpec, stream: str) -> list[VerdictRecord]:
        ctx, done = self._ctx, self._done
        engine = ctx.engine(self._key, spec)
        records = judge_tasks(
            engine,
            tasks,
            config=ctx.config.verdict,
            prompts=ctx.inputs.prompts,
            run_seed=ctx.seed,
            iteration=self._key.iteration,
            stage=stream,
            engine_name=engine.name,
            policy=spec.policy,
            progress=lambda now, _: ctx.reporter.advance(done + now, self._total),
        )
        self._done += expected_steps(len(tasks), ctx.config.verdict)
        return records

    def by_channel(self, tasks: Sequence[tuple[str, str]], spec: EngineSpec) -> list[VerdictRecord]:
        """The tasks by their likelihood under the introspection prompts."""
        ctx, done = self._ctx, self._done
        records = judge_by_channel(
            ctx.engine(self._key, spec),
            tasks,
            channel=_channel(ctx.config),
            introspection=ctx.config.introspection,
            seeds=ctx.inputs.seeds,
            prompts=ctx.inputs.prompts,
            run_seed=ctx.seed,
            iteration=self._key.iteration,
            policy=spec.policy,
            progress=lambda now, _: ctx.reporter.advance(done + now, self._total),
        )
        self._done += _teacher_steps(ctx.config, len(tasks))
        return records


def _asks_channel(config: Config) -> bool:
    return config.consensus.reward.votes in CHANNEL_VOTES


def _channel(config: Config) -> Channel:
    reward, k = config.consensus.reward, config.verdict.k
    return Channel(draws=min(reward.channel_draws, k), shots=reward.channel_shots, verdicts=k)


def _teacher_steps(config: Config, tasks: int) -> int:
    if _asks_channel(config):
        return channel_steps(tasks, _channel(config))
    return expected_steps(tasks, config.verdict)


STAGE = Stage(name=CLASSIFY, config=_config, inputs=_inputs, body=_body)
classify = stage_task(STAGE)
