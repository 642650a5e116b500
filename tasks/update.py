"""Stage ``update``: the RL update on the verdicts that passed the training gate."""

from collections import defaultdict
from typing import Any

from knowrl_core.config import Config
from knowrl_core.rl import FlatVerdict, Rollout, UpdateJob, UpdateResult, Verdict
from knowrl_core.rng import derive_seed
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import CLASSIFY, CONSENSUS, UPDATE, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.retention import CHECKPOINT
from knowrl_core.storage.schemas import ConsensusRecord, RolloutRecord, StepRecord, VerdictRecord
from tasks.classify import VERDICTS
from tasks.consensus import TABLE
from tasks.context import RunContext
from tasks.stage import Stage, stage_task

ROLLOUTS = "rollouts.parquet"
TRAINING = "training.parquet"


def _config(config: Config) -> dict[str, Any]:
    return {
        "rl": config.rl.model_dump(mode="json"),
        "threads": config.engine.threads,
        "device": config.model.device,
    }


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    refs = [ctx.ref(StageKey(key.iteration, CONSENSUS), TABLE), ctx.ref(StageKey(key.iteration, CLASSIFY), VERDICTS)]
    refs += ctx.checkpoint_refs(key.iteration - 1)
    # The reference is the initial model, which is the policy's start as well: one line for both.
    reference = ctx.checkpoint_refs(0) if ctx.config.rl.kl_coef > 0 and key.iteration > 1 else []
    return refs + reference


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """REINFORCE++ on the verdicts, rewarded by agreement with the consensus."""
    rows = ctx.read(StageKey(key.iteration, CONSENSUS), TABLE, ConsensusRecord)
    verdicts = ctx.read(StageKey(key.iteration, CLASSIFY), VERDICTS, VerdictRecord)
    rl = ctx.config.rl
    previous = key.iteration - 1
    job = UpdateJob(
        device="cpu",  # the worker knows what there is, and sets it
        policy_dir=ctx.policy_folder(previous),
        reference_dir=ctx.policy_folder(0) if rl.kl_coef > 0 else None,
        optimizer_dir=ctx.policy_folder(previous) if previous else None,
        output_dir=writer.path(CHECKPOINT),
        rollouts=tuple(rollouts(rows, verdicts)),
        rl=rl,
        shuffle_seed=derive_seed(ctx.seed, key.iteration, UPDATE, "order"),
    )
    answer = ctx.worker.update(ctx.engine_spec(previous), job.model_dump(mode="json"), progress=ctx.reporter.advance)
    result = UpdateResult.model_validate(answer)
    writer.write(ROLLOUTS, RolloutRecord, result.rollouts)
    writer.write(TRAINING, StepRecord, result.steps)
    writer.metrics |= result.metrics
    if not result.steps:
        ctx.reporter.warning(f"{key}: no task passed the training gate; the policy is carried on unchanged")


def rollouts(rows: list[ConsensusRecord], verdicts: list[VerdictRecord]) -> list[Rollout]:
    """The verdicts of the tasks that passed the training gate, each with its reward, in the order of the tasks."""
    by_task: dict[str, list[VerdictRecord]] = defaultdict(list)
    for verdict in verdicts:
        by_task[verdict.task_id].append(verdict)
    return [
        Rollout.from_verdicts(
            row.task_id,
            [
                FlatVerdict(
                    tuple(item.prompt_token_ids),
                    Verdict(
                        sample=item.sample,
                        response_token_ids=tuple(item.token_ids),
                        engine_logprobs=tuple(item.logprobs),
                        reward=row.rewards[item.sample],
                    ),
                )
                for item in by_task[row.task_id]
            ],
        )
        for row in rows
        if row.trained
    ]


update = stage_task(Stage(name=UPDATE, config=_config, inputs=_inputs, body=_body))
