"""Stage ``update``: the RL update on the verdicts that passed the training gate."""

from collections import defaultdict
from typing import Any

from knowrl_core.config import Config
from knowrl_core.config.rl import RLConfig
from knowrl_core.labels import LABELS
from knowrl_core.rl import FlatVerdict, Rollout, UpdateJob, UpdateResult, Verdict
from knowrl_core.rl.distributed.config import deepspeed_settings
from knowrl_core.rng import derive_seed
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import CLASSIFY, CONSENSUS, CONSENSUS_TABLE, UPDATE, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.retention import CHECKPOINT
from knowrl_core.storage.schemas import ConsensusRecord, RolloutRecord, StepRecord, VerdictRecord
from knowrl_core.worker.messages import Progress
from tasks.classify import ANCHORS, VERDICTS
from tasks.consensus import optional_refs
from tasks.context import RunContext
from tasks.stage import Stage, stage_task
from tasks.teacher import average_folder

ROLLOUTS = "rollouts.parquet"
TRAINING = "training.parquet"


def _config(config: Config) -> dict[str, Any]:
    return {
        "rl": config.rl.model_dump(mode="json", exclude={"save_steps"}),  # how often to save changes nothing
        "reference": needs_reference(config),
        # With the content of the user's file, not only its path.
        "deepspeed": deepspeed_settings(config.rl) if config.rl.trainer == "deepspeed" else None,
        "average_decay": config.consensus.reward.average_decay if averages(config) else None,
        "threads": config.engine.threads,
        "device": config.model.device,
    }


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    refs = [
        ctx.ref(StageKey(key.iteration, CONSENSUS), CONSENSUS_TABLE),
        ctx.ref(StageKey(key.iteration, CLASSIFY), VERDICTS),
    ]
    refs += optional_refs(ctx, StageKey(key.iteration, CONSENSUS), ANCHORS)
    refs += optional_refs(ctx, StageKey(key.iteration, CLASSIFY), ANCHORS)
    parent = ctx.parent(key.iteration)
    refs += ctx.decision_refs(key.iteration)
    refs += ctx.checkpoint_refs(parent)
    # The reference is the initial model, which is the policy's start as well: one line for both.
    reference = ctx.checkpoint_refs(0) if needs_reference(ctx.config) and parent else []
    return refs + reference


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """REINFORCE++ on the verdicts, rewarded by agreement with the consensus."""
    rows = ctx.read(StageKey(key.iteration, CONSENSUS), CONSENSUS_TABLE, ConsensusRecord)
    verdicts = ctx.read(StageKey(key.iteration, CLASSIFY), VERDICTS, VerdictRecord)
    anchors, anchor_verdicts = _anchors(ctx, key)
    factor = ctx.decision(key.iteration - 1).learning_rate_factor
    previous = ctx.parent(key.iteration)
    job = UpdateJob(
        device="cpu",  # the worker knows what there is, and sets it
        policy_dir=ctx.policy_folder(previous),
        reference_dir=ctx.policy_folder(0) if needs_reference(ctx.config) else None,
        optimizer_dir=ctx.optimizer_folder(previous),
        output_dir=writer.path(CHECKPOINT),
        rollouts=(*rollouts(rows, verdicts), *rollouts(anchors, anchor_verdicts, anchor=True)),
        rl=scaled(ctx.config.rl, factor),
        shuffle_seed=derive_seed(ctx.seed, key.iteration, UPDATE, "order"),
        average_dir=average_folder(ctx, previous) if averages(ctx.config) else None,
        average_decay=ctx.config.consensus.reward.average_decay,
        non_finite="discard",  # a guard decides what follows, once the iteration is evaluated
    )
    run_job(ctx, writer, job, previous)
    writer.metrics["learning_rate_factor"] = factor
    if not writer.metrics["steps"] and not writer.metrics.get("non_finite"):
        why = "no step had anything to learn from" if job.rollouts else "no task passed the training gate"
        ctx.reporter.warning(f"{key}: {why}; the policy is carried on unchanged")


def run_job(ctx: RunContext, writer: StageWriter, job: UpdateJob, policy: int) -> None:
    """Train in the worker and write what comes of it.

    Args:
        ctx: The run.
        writer: Takes the tables and the metrics.
        job: What to train.
        policy: The iteration that the job starts from.
    """
    job = job.model_copy(update={"snapshot_dir": ctx.paths.kept(writer.key), "snapshot_key": writer.signature})

    def progress(now: Progress) -> None:
        ctx.reporter.add_tokens(now.tokens)
        ctx.reporter.advance(now.done, now.total, now.phase)

    answer = ctx.worker.update(ctx.engine_spec(policy), job.model_dump(mode="json"), progress=progress)
    result = UpdateResult.model_validate(answer)
    writer.write(ROLLOUTS, RolloutRecord, result.rollouts)
    writer.write(TRAINING, StepRecord, result.steps)
    writer.metrics |= result.metrics


def needs_reference(config: Config) -> bool:
    """Whether the KL to the initial model is computed: for the penalty, or for a guard that acts on it."""
    return config.rl.kl_coef > 0 or config.guards.kl.action in ("stop", "rollback")


def scaled(rl: RLConfig, factor: float) -> RLConfig:
    """The config with its learning rates times a factor, so that a schedule keeps its form."""
    rates = {"learning_rate": rl.learning_rate * factor, "min_learning_rate": rl.min_learning_rate * factor}
    return rl.model_copy(update=rates)


def averages(config: Config) -> bool:
    """Whether an average of the policy's weights is kept, as the teacher of the iterations to come."""
    return config.consensus.reward.votes == "average"


def _anchors(ctx: RunContext, key: StageKey) -> tuple[list[ConsensusRecord], list[VerdictRecord]]:
    if not optional_refs(ctx, StageKey(key.iteration, CONSENSUS), ANCHORS):
        return [], []
    rows = ctx.read(StageKey(key.iteration, CONSENSUS), ANCHORS, ConsensusRecord)
    return rows, ctx.read(StageKey(key.iteration, CLASSIFY), ANCHORS, VerdictRecord)


def rollouts(rows: list[ConsensusRecord], verdicts: list[VerdictRecord], *, anchor: bool = False) -> list[Rollout]:
    """The verdicts of the tasks that are trained on, each with its reward, in the order of the tasks.

    Args:
        rows: Candidates or anchors.
        verdicts: The policy's verdicts on them.
        anchor: Whether they are anchors.
    """
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
            label=next((label for label in LABELS if label == row.label), None),
            anchor=anchor,
        )
        for row in rows
        if row.trained
    ]


STAGE = Stage(name=UPDATE, config=_config, inputs=_inputs, body=_body)
update = stage_task(STAGE)
