"""Records and summary of an update, from what was computed."""

import math
from collections.abc import Sequence

import numpy as np

from knowrl_core.rl.batches import MiniBatch
from knowrl_core.rl.experience import Experience, Floats
from knowrl_core.rl.kl import kl_estimate
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
                label=data.rollouts[task].label,
                anchor=data.rollouts[task].anchor,
                batch=batch_of[task],
                reward=verdict.reward,
                advantage=_mean(data.advantages[span]),
                importance=1.0 if data.importance is None else _mean(data.importance[span]),
                tokens=len(verdict.response_token_ids),
                logprob_engine=float(data.engine[span].sum()),
                logprob_policy=float(data.policy[span].sum()) if len(data.policy) else None,
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
        policy_loss=outcome.policy_loss,
        kl=outcome.kl,
        kl_k3=outcome.kl_k3,
        clip_fraction=outcome.clip_fraction,
        grad_norm=outcome.grad_norm,
        entropy=outcome.entropy,
        tasks=len(mini.tasks),
        tokens=mini.tokens,
    )


def summary(data: Experience, steps: Sequence[StepRecord]) -> dict[str, float]:
    """Metrics of an update, all finite; what is undefined is absent.

    Means over steps are weighted by their response tokens, except for the gradient norm.
    """
    metrics = {
        "tasks": float(len(data.rollouts)),
        "anchors": float(sum(rollout.anchor for rollout in data.rollouts)),
        "verdicts": float(len(data.verdicts)),
        "tokens": float(data.n_tokens),
        "steps": float(len(steps)),
        "skipped": float(not steps),
    }
    if not data.verdicts:
        return metrics
    units = [unit for task in data.units for unit in task]
    metrics |= {
        "reward/mean": float(data.rewards.mean()),
        "reward/std": float(data.rewards.std()),
        "packing/saving": 1.0 - sum(u.packed_length for u in units) / sum(u.plain_length for u in units),
    }
    # Apart: agreement with the truth must not hide what agreement with itself does.
    anchors = np.array([data.rollouts[task].anchor for task in data.task])
    for name, own in (("candidates", ~anchors), ("anchors", anchors)):
        if own.any():
            metrics[f"reward/{name}"] = float(data.rewards[own].mean())
    metrics |= _steps(steps)
    if len(data.policy) and np.isfinite(data.policy).all():
        metrics |= _probabilities(data)
    return metrics


def _steps(steps: Sequence[StepRecord]) -> dict[str, float]:
    if not steps:
        return {}
    weights = np.array([step.tokens for step in steps], dtype=np.float64)

    def mean(name: str) -> float:
        return float(np.average([getattr(step, name) for step in steps], weights=weights))

    norms = [step.grad_norm for step in steps]
    metrics = {
        "loss/mean": mean("loss"),
        "policy_loss/mean": mean("policy_loss"),
        "grad_norm/mean": math.fsum(norms) / len(norms),
        "grad_norm/max": max(norms),
        "clip_fraction": mean("clip_fraction"),
        "entropy": mean("entropy"),
        "learning_rate": steps[-1].learning_rate,
    }
    last = steps[-1].kl_k3
    if last is not None:
        metrics |= {"kl/mean": mean("kl"), "kl/mean_k3": mean("kl_k3"), "kl/end": last}
    return metrics


def _probabilities(data: Experience) -> dict[str, float]:
    """How far the engine's log-probabilities are from the trainer's, and the policy from the reference."""
    difference = data.policy - data.engine
    ratio = np.exp(np.minimum(difference, 50.0))
    metrics = {
        "engine_logprob_diff/mean": float(np.abs(difference).mean()),
        "engine_logprob_diff/max": float(np.abs(difference).max()),
        # k3 of KL(engine || policy): tokens were drawn from the engine.
        "engine_kl": float((ratio - 1 - difference).mean()),
    }
    if data.importance is not None:
        metrics["importance/mean"] = float(data.importance.mean())
        metrics["importance/capped"] = float((data.importance < ratio * (1 - 1e-9)).mean())
    if data.reference is not None and np.isfinite(data.reference).all():
        metrics["kl/start"] = float(kl_estimate(data.policy, data.reference, "k1").mean())
    return metrics


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0
