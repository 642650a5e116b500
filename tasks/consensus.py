"""Stage ``consensus``: votes, rewards, gates, pool."""

from typing import Any

from knowrl_core.config import Config
from knowrl_core.consensus import build_consensus, summarise
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import CLASSIFY, CONSENSUS, GENERATE, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.schemas import Candidate, ConsensusRecord, PoolRecord, VerdictRecord
from tasks.classify import VERDICTS
from tasks.context import RunContext
from tasks.generate import CANDIDATES, POOL
from tasks.stage import Stage, stage_task

TABLE = "consensus.parquet"


def _config(config: Config) -> dict[str, Any]:
    return {"consensus": config.consensus.model_dump(mode="json")}


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    refs = [
        ctx.ref(StageKey(key.iteration, GENERATE), CANDIDATES),
        ctx.ref(StageKey(key.iteration, CLASSIFY), VERDICTS),
    ]
    if key.iteration > 1:
        refs.append(ctx.ref(StageKey(key.iteration - 1, CONSENSUS), POOL))
    return refs


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """The majority of a task's verdicts gives its label and each verdict's reward; gates decide what is used."""
    candidates = ctx.read(StageKey(key.iteration, GENERATE), CANDIDATES, Candidate)
    verdicts = ctx.read(StageKey(key.iteration, CLASSIFY), VERDICTS, VerdictRecord)
    pool = ctx.read(StageKey(key.iteration - 1, CONSENSUS), POOL, PoolRecord) if key.iteration > 1 else []
    # As many as were asked for when the tasks were judged: the config may have changed since.
    k = int(ctx.history[StageKey(key.iteration, CLASSIFY)].config["verdict"]["k"])
    rows, new_pool = build_consensus(candidates, verdicts, pool, ctx.config.consensus, iteration=key.iteration, k=k)
    writer.write(TABLE, ConsensusRecord, rows)
    writer.write(POOL, PoolRecord, new_pool)
    writer.metrics |= summarise(rows, new_pool)


consensus = stage_task(Stage(name=CONSENSUS, config=_config, inputs=_inputs, body=_body, uses_model=False))
