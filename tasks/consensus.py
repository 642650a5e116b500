"""Stage ``consensus``: labels, rewards, gates, pool."""

from typing import Any

from knowrl_core.config import Config
from knowrl_core.config.learning import AnchorConfig, ConsensusConfig
from knowrl_core.consensus import build_anchors, build_consensus, summarise
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import CLASSIFY, CONSENSUS, CONSENSUS_TABLE, GENERATE, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.schemas import Candidate, ConsensusRecord, PoolRecord, VerdictRecord
from tasks.classify import ANCHORS, TEACHER_VERDICTS, VERDICTS
from tasks.context import RunContext
from tasks.generate import CANDIDATES, POOL, pool_refs, read_pool
from tasks.stage import Stage, stage_task


def _config(config: Config) -> dict[str, Any]:
    return {"consensus": config.consensus.model_dump(mode="json")}


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    classified = StageKey(key.iteration, CLASSIFY)
    refs = [
        ctx.ref(StageKey(key.iteration, GENERATE), CANDIDATES),
        ctx.ref(classified, VERDICTS),
        *optional_refs(ctx, classified, ANCHORS, TEACHER_VERDICTS),
        *ctx.decision_refs(key.iteration),
        *pool_refs(ctx, ctx.parent(key.iteration)),
    ]
    if optional_refs(ctx, classified, ANCHORS):
        refs += ctx.pin_refs("files.feasible", "files.infeasible")
    return refs


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """The verdicts on a task give its label and each verdict's reward; gates decide what is used."""
    classified = StageKey(key.iteration, CLASSIFY)
    # As many as were asked for when the tasks were judged: the config may have changed since.
    judged = ctx.history[classified].config
    k = int(judged["verdict"]["k"])
    anchored = bool(optional_refs(ctx, classified, ANCHORS))
    taught = bool(optional_refs(ctx, classified, TEACHER_VERDICTS))
    rows, new_pool = build_consensus(
        ctx.read(StageKey(key.iteration, GENERATE), CANDIDATES, Candidate),
        ctx.read(classified, VERDICTS, VerdictRecord),
        read_pool(ctx, ctx.parent(key.iteration)),
        _as_judged(ctx.config.consensus, judged),
        iteration=key.iteration,
        k=k,
        teacher=ctx.read(classified, TEACHER_VERDICTS, VerdictRecord) if taught else None,
    )
    verdicts = ctx.read(classified, ANCHORS, VerdictRecord) if anchored else []
    anchors = build_anchors(verdicts, ctx.inputs.seeds, k=k)
    writer.write(CONSENSUS_TABLE, ConsensusRecord, rows)
    writer.write(POOL, PoolRecord, new_pool)
    if anchored:
        writer.write(ANCHORS, ConsensusRecord, anchors)
    writer.metrics |= summarise(rows, new_pool, anchors)


def optional_refs(ctx: RunContext, key: StageKey, *names: str) -> list[FileRef]:
    """Those of the files that a stage has written, as inputs of another; none if the stage is not there."""
    written = {ref.path for ref in ctx.history[key].outputs} if key in ctx.history else set()
    return [ctx.ref(key, name) for name in names if ctx.paths.relative(ctx.paths.file(key, name)) in written]


def _as_judged(config: ConsensusConfig, judged: dict[str, Any]) -> ConsensusConfig:
    """The config with the share of anchors and the judges that were asked, which cannot change any more."""
    reward = config.reward.model_copy(update={"votes": judged["votes"]})
    return config.model_copy(update={"anchors": AnchorConfig(share=judged["anchors"]["share"]), "reward": reward})


STAGE = Stage(name=CONSENSUS, config=_config, inputs=_inputs, body=_body, uses_model=False)
consensus = stage_task(STAGE)
