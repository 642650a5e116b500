"""From log-probabilities and rewards to what the optimizer steps need."""

from collections.abc import Sequence

import numpy as np

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.advantages import Penalty, RolloutBatch, algorithm
from knowrl_core.rl.balance import balanced
from knowrl_core.rl.experience import Experience, Floats


def fill_in(data: Experience, batches: Sequence[Sequence[int]], rl: RLConfig) -> None:
    """Fill in old log-probabilities, importance weights and advantages; ``policy`` and ``reference`` are there.

    Args:
        data: The rollouts.
        batches: Tasks of each rollout batch; each is whitened by itself.
        rl: The algorithm.
    """
    data.old = data.policy if rl.old_logprobs == "recomputed" else data.engine
    if rl.importance_cap is not None:
        data.importance = importance(data.policy, data.engine, rl.importance_cap)
    data.advantages = _advantages(data, batches, rl)


def importance(policy: Floats, engine: Floats, cap: float) -> Floats:
    """[N] ``min(policy(x) / engine(x), cap)`` per token: truncated importance sampling (Ionides 2008).

    Args:
        policy: [N] log-probabilities by the trainer.
        engine: [N] by the engine that sampled.
        cap: Largest weight.
    """
    return np.exp(np.minimum(policy - engine, np.log(cap)))


def has_signal(data: Experience, tasks: Sequence[int], rl: RLConfig) -> bool:
    """Whether a step on these tasks has a gradient at all.

    Where all verdicts agree, advantages are zero. Without another term in the loss such a step would only let old
    momentum move the weights, so it is left out.
    """
    if rl.entropy_coef or (rl.kl_in == "loss" and rl.kl_coef and data.reference is not None):
        return True
    _, tokens = data.select(tasks)
    return bool(np.any(data.advantages[tokens]))


def _advantages(data: Experience, batches: Sequence[Sequence[int]], rl: RLConfig) -> Floats:
    advantages = np.zeros(data.n_tokens)
    compute = algorithm(rl.algorithm)
    penalty = Penalty(rl.kl_coef if rl.kl_in == "reward" else 0.0, rl.kl_estimator)
    labels = data.token_labels
    for members in batches:
        verdicts, tokens = data.select(members)
        batch = RolloutBatch(
            rewards=data.rewards[verdicts],
            lengths=data.lengths[verdicts],
            tasks=data.task[verdicts],
            policy=data.policy[tokens],
            reference=None if data.reference is None else data.reference[tokens],
        )
        values = compute(batch, penalty)
        advantages[tokens] = balanced(values, [labels[t] for t in tokens]) if rl.balance_advantages else values
    return advantages
