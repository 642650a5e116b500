"""Records and summary of an update, from what was computed."""

import math
from collections.abc import Sequence

import numpy as np

from knowrl_core.rl.advantages import k1
from knowrl_core.rl.batches import MiniBatch
from knowrl_core.rl.experience import Experience
from knowrl_core.rl.trainer import StepOutcome
from knowrl_core.storage.schemas import RolloutRecord, StepRecord


def rollout_records(data: Experience, batches: Sequence[Sequence[int]]) -> list[RolloutRecord]:
    """One record a verdict, in the order of the rollouts."""
    batch_of = {task: number for number, members in enumerate(batches) for task in members}
    records = []
    for v, verdict in enumerate(data.verdicts):
        span = slice(int(data.starts[v]), int(data.starts[v + 1]))
        task = int(data.task[v])
        records.append(
            RolloutRecord(
                task_id=data.rollouts[task].task_id,
                sample=verdict.sample,
                batch=batch_of[task],
                reward=verdict.reward,
                advantage=float(data.advantages[span].mean()),
                tokens=len(verdict.response_token_ids),
                logprob_engine=float(data.engine[span].sum()),
                logprob_policy=float(data.policy[span].sum()),
                logprob_reference=None if data.reference is None else float(data.reference[span].sum()),
            )
        )
    return records


def step_record(number: int, mini: MiniBatch, outcome: StepOutcome) -> StepRecord:
    """The record of optimizer step ``number`` of the run."""
    return StepRecord(
        step=number,
        epoch=mini.epoch,
        batch=mini.batch,
        learning_rate=outcome.learning_rate,
        loss=outcome.loss,
        kl=outcome.kl,
        clip_fraction=outcome.clip_fraction,
        grad_norm=outcome.grad_norm,
        entropy=outcome.entropy,
        tasks=len(mini.tasks),
        tokens=mini.tokens,
    )


def summary(data: Experience, steps: Sequence[StepRecord], *, left_out: int) -> dict[str, float]:
    """Metrics of an update, all finite; what is undefined is absent.

    Means over steps are weighted by their response tokens, except for the gradient norm.
    """
    metrics = {
        "tasks": float(len(data.rollouts)),
        "verdicts": float(len(data.verdicts)),
        "tokens": float(data.n_tokens),
        "steps": float(len(steps)),
        "skipped": float(not steps),
        "left_out_prompt_too_long": float(left_out),
    }
    if not steps:
        return metrics
    weights = np.array([step.tokens for step in steps], dtype=np.float64)

    def mean(name: str) -> float:
        return float(np.average([getattr(step, name) for step in steps], weights=weights))

    difference = np.abs(data.policy - data.engine)
    units = [unit for task in data.units for unit in task]
    norms = [step.grad_norm for step in steps]
    metrics |= {
        "reward/mean": float(data.rewards.mean()),
        "reward/std": float(data.rewards.std()),
        "loss/mean": mean("loss"),
        "grad_norm/mean": math.fsum(norms) / len(norms),
        "grad_norm/max": max(norms),
        "clip_fraction": mean("clip_fraction"),
        "entropy": mean("entropy"),
        "learning_rate": steps[-1].learning_rate,
        "engine_logprob_diff/mean": float(difference.mean()),
        "engine_logprob_diff/max": float(difference.max()),
        "packing/saving": 1.0 - sum(u.packed_length for u in units) / sum(u.plain_length for u in units),
    }
    if data.reference is not None:
        metrics["kl/mean"] = mean("kl")
        metrics["kl/start"] = float(k1(data.policy, data.reference).mean())
    return metrics
