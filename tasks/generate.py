"""Stage ``generate``: introspection. In iteration 0 it makes the frozen task set."""

import math
from collections import Counter
from typing import Any

from knowrl_core.config import Config
from knowrl_core.introspection import build_candidates, plan_calls
from knowrl_core.labels import LABELS
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import CONSENSUS, GENERATE, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.schemas import Candidate, PoolRecord
from tasks.context import RunContext
from tasks.labelled_sets import FROZEN, PROBE, benchmark_refs, benchmark_tasks
from tasks.stage import Stage, engine_slice, stage_task, track

CANDIDATES = "candidates.parquet"
POOL = "pool.parquet"


def _config(config: Config) -> dict[str, Any]:
    return {
        "introspection": config.introspection.model_dump(mode="json"),
        "held_out": sorted(item.name for item in config.evaluation.benchmarks),
        "engine": engine_slice(config),
    }


def pool_refs(ctx: RunContext, iteration: int) -> list[FileRef]:
    """The pool after an iteration as an input; iteration 0 and a warm-up leave none."""
    key = StageKey(iteration, CONSENSUS)
    return [ctx.ref(key, POOL)] if key in ctx.history else []


def read_pool(ctx: RunContext, iteration: int) -> list[PoolRecord]:
    """The pool after an iteration; empty after iteration 0 and after a warm-up."""
    key = StageKey(iteration, CONSENSUS)
    return ctx.read(key, POOL, PoolRecord) if key in ctx.history else []


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    prompts = ctx.inputs.prompts
    refs = ctx.pin_refs("files.feasible", "files.infeasible", "files.probe")
    refs += benchmark_refs(ctx.config)
    refs += ctx.template_refs([prompts.introspect_feasible, prompts.introspect_infeasible])
    parent = ctx.parent(key.iteration)
    refs += ctx.decision_refs(key.iteration)
    refs += ctx.checkpoint_refs(parent)
    if key.iteration:
        refs.append(ctx.ref(StageKey(0, GENERATE), CANDIDATES))
    return refs + pool_refs(ctx, parent)


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """The model writes tasks that it believes feasible, and tasks that it believes infeasible, for itself."""
    config = ctx.config.introspection
    parent = ctx.parent(key.iteration)
    pool = read_pool(ctx, parent)
    plan = plan_calls(
        config, ctx.inputs.seeds, pool, run_seed=ctx.seed, iteration=key.iteration, prompts=ctx.inputs.prompts
    )
    engine = ctx.engine(key, ctx.engine_spec(parent))
    results = list(track(engine.generate([call.request for call in plan]), ctx, len(plan)))
    candidates = build_candidates(
        results,
        plan,
        config=config,
        seeds=ctx.inputs.seeds,
        pool=pool,
        iteration=key.iteration,
        engine=engine.name,
        policy=ctx.policy_name(parent),
        held_out=held_out(ctx, key),
    )
    writer.write(CANDIDATES, Candidate, candidates)
    kept = [item for item in candidates if item.kept]
    writer.metrics |= {"calls": len(plan), "parsed": len(candidates), "kept": len(kept)}
    writer.metrics |= {f"kept/{label}": sum(item.intended == label for item in kept) for label in LABELS}
    drops = Counter(item.drop_reason for item in candidates if item.drop_reason)
    writer.metrics |= {f"dropped/{reason}": count for reason, count in sorted(drops.items())}
    tokens = [len(sample.token_ids) for result in results for sample in result.samples]
    writer.metrics |= {"tokens": math.fsum(tokens)}
    if not kept:
        ctx.reporter.warning(
            f"{key}: none of {len(candidates)} parsed tasks passed the filters; see drop_reason in {CANDIDATES}"
        )


def held_out(ctx: RunContext, key: StageKey) -> dict[str, list[tuple[str, str]]]:
    """What evaluation measures, as (id, text) by set: probe, benchmarks, and the frozen set once it is there."""
    sets = {PROBE: [(task.id, task.task) for task in ctx.inputs.probe], **benchmark_tasks(ctx.config)}
    if key.iteration:
        frozen = ctx.read(StageKey(0, GENERATE), CANDIDATES, Candidate)
        sets[FROZEN] = [(item.id, item.task) for item in frozen if item.kept]
    return sets


STAGE = Stage(name=GENERATE, config=_config, inputs=_inputs, body=_body)
generate = stage_task(STAGE)
