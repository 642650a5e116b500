"""Stage ``classify``: self-assessment."""

from typing import Any

from knowrl_core.config import Config
from knowrl_core.labels import FEASIBLE, UNPARSEABLE
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import CLASSIFY, GENERATE, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.schemas import Candidate, VerdictRecord
from knowrl_core.verdicts import judge_tasks
from tasks.context import RunContext
from tasks.generate import CANDIDATES
from tasks.stage import Stage, engine_slice, finite_mean, stage_task, verdict_slice

VERDICTS = "verdicts.parquet"


def _config(config: Config) -> dict[str, Any]:
    return {"verdict": verdict_slice(config), "engine": engine_slice(config)}


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    return [
        ctx.ref(StageKey(key.iteration, GENERATE), CANDIDATES),
        *ctx.template_refs([ctx.inputs.prompts.verdict(ctx.config.verdict.mode)]),
        *ctx.checkpoint_refs(key.iteration - 1),
    ]


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """The model judges every candidate k times, blind to the label that it was generated under."""
    candidates = ctx.read(StageKey(key.iteration, GENERATE), CANDIDATES, Candidate)
    tasks = [(item.id, item.task) for item in candidates if item.kept]
    policy = key.iteration - 1
    engine = ctx.engine(policy)
    verdicts = judge_tasks(
        engine,
        tasks,
        config=ctx.config.verdict,
        prompts=ctx.inputs.prompts,
        run_seed=ctx.seed,
        iteration=key.iteration,
        stage=CLASSIFY,
        engine_name=engine.name,
        policy=ctx.policy_name(policy),
        progress=ctx.reporter.advance,
    )
    writer.write(VERDICTS, VerdictRecord, verdicts)
    writer.metrics |= {"tasks": len(tasks), "verdicts": len(verdicts)}
    writer.metrics |= {
        **finite_mean("called_feasible", [item.verdict == FEASIBLE for item in verdicts]),
        **finite_mean("unparseable", [item.verdict == UNPARSEABLE for item in verdicts]),
        **finite_mean("label_mass/mean", [item.label_mass for item in verdicts]),
        **finite_mean("p_infeasible/mean", [item.p_infeasible for item in verdicts]),
    }


classify = stage_task(Stage(name=CLASSIFY, config=_config, inputs=_inputs, body=_body))
