"""From rewards to advantages: one function an algorithm, found by name.

All arithmetic is in float64 on the CPU: it costs nothing beside the model, and the result does not depend on the
device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from knowrl_core.errors import InputError
from knowrl_core.rl.experience import Floats, Ints
from knowrl_core.rl.kl import Estimator, kl_estimate

VARIANCE_FLOOR: Final = 1e-8
"""Smallest variance that whitening divides by, as in OpenRLHF (``var.clamp(min=1e-8).rsqrt()``)."""

GROUP_EPSILON: Final = 1e-4
"""Added to a group's standard deviation, as in TRL's GRPO trainer."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """The KL penalty that goes into the token rewards."""

    coef: float
    """Its weight; 0 for none."""
    estimator: Estimator = "k1"
    """How the KL is estimated."""


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """What an algorithm sees: ``V`` verdicts with ``N`` response tokens, verdict after verdict."""

    rewards: Floats
    """[V] reward of each verdict."""
    lengths: Ints
    """[V] response tokens of each verdict, all at least 1, together N."""
    tasks: Ints
    """[V] the task that each verdict belongs to: the group of the algorithms with group baselines."""
    policy: Floats
    """[N] log-probabilities by the policy before the first step."""
    reference: Floats | None
    """[N] log-probabilities by the reference; None turns the penalty off."""


Algorithm = Callable[[RolloutBatch, Penalty], Floats]
"""``(batch, penalty) -> advantages [N]``."""


def token_rewards(batch: RolloutBatch, rewards: Floats, penalty: Penalty) -> Floats:
    """[N] ``r_t = [t is the last token] R - coef * KL_t`` (REINFORCE++, arXiv 2501.03262, equations 8 and 9).

    Args:
        batch: The verdicts.
        rewards: [V] the R, already shaped by the algorithm.
        penalty: The KL penalty.
    """
    values = np.zeros(int(batch.lengths.sum()))
    if batch.reference is not None and penalty.coef:
        values -= penalty.coef * kl_estimate(batch.policy, batch.reference, penalty.estimator)
    values[np.cumsum(batch.lengths) - 1] += rewards
    return values


def returns_to_go(rewards: Floats, lengths: Ints) -> Floats:
    """[N] ``G_t = r_t + r_{t+1} + ... + r_last`` within each verdict (discount 1)."""
    pieces = np.split(rewards, np.cumsum(lengths)[:-1])
    return np.concatenate([np.cumsum(piece[::-1])[::-1] for piece in pieces])


def whiten(values: Floats) -> Floats:
    """``(x - mean) / sqrt(max(var, 1e-8))`` with the biased variance (divided by N), as OpenRLHF does.

    Values that are all equal give zeros, exactly: no signal must not become amplified rounding noise, and never NaN.
    """
    if values.size == 0 or values.min() == values.max():
        return np.zeros_like(values)
    centred = values - values.mean()
    return np.asarray(centred / np.sqrt(max(float(np.mean(centred**2)), VARIANCE_FLOOR)), dtype=np.float64)


def by_task(batch: RolloutBatch, shape: Callable[[Floats], Floats]) -> Floats:
    """[V] the rewards of each task, shaped together."""
    shaped = np.empty_like(batch.rewards)
    for task in np.unique(batch.tasks):
        own = batch.tasks == task
        shaped[own] = shape(batch.rewards[own])
    return shaped


def centred(rewards: Floats) -> Floats:
    """``R_i - mean(R)``; exact zeros for equal rewards."""
    return np.zeros_like(rewards) if rewards.min() == rewards.max() else rewards - rewards.mean()


def standardised(rewards: Floats) -> Floats:
    """``(R_i - mean(R)) / (std(R) + 1e-4)`` with the unbiased deviation (divided by n - 1), as TRL does.

    Zeros for equal rewards and for a group of one.
    """
    if len(rewards) < 2:
        return np.zeros_like(rewards)
    return centred(rewards) / (float(rewards.std(ddof=1)) + GROUP_EPSILON)


def left_out_mean(rewards: Floats) -> Floats:
    """``R_i - mean over j != i of R_j = (R_i - mean(R)) n / (n - 1)``; zeros for a group of one."""
    if len(rewards) < 2:
        return np.zeros_like(rewards)
    return centred(rewards) * (len(rewards) / (len(rewards) - 1))


def reinforce_pp(batch: RolloutBatch, penalty: Penalty) -> Floats:
    """REINFORCE++ (arXiv 2501.03262): returns of the penalised token rewards, whitened over the batch's tokens."""
    return whiten(returns_to_go(token_rewards(batch, batch.rewards, penalty), batch.lengths))


def reinforce_pp_baseline(batch: RolloutBatch, penalty: Penalty) -> Floats:
    """REINFORCE++-baseline (same paper, section 3): the task's mean reward is subtracted before the whitening."""
    return whiten(returns_to_go(token_rewards(batch, by_task(batch, centred), penalty), batch.lengths))


def grpo(batch: RolloutBatch, penalty: Penalty) -> Floats:
    """GRPO (Shao et al. 2024, arXiv 2402.03300, equation 3 and section 4.1.2): standardised within the task."""
    return returns_to_go(token_rewards(batch, by_task(batch, standardised), penalty), batch.lengths)


def rloo(batch: RolloutBatch, penalty: Penalty) -> Floats:
    """RLOO (Ahmadian et al. 2024, arXiv 2402.14740, equation 8): the mean of the task's other rewards subtracted."""
    return returns_to_go(token_rewards(batch, by_task(batch, left_out_mean), penalty), batch.lengths)


ALGORITHMS: Final[dict[str, Algorithm]] = {
    "reinforce++": reinforce_pp,
    "reinforce++-baseline": reinforce_pp_baseline,
    "grpo": grpo,
    "rloo": rloo,
}
"""Every algorithm by the name that the config uses."""


def algorithm(name: str) -> Algorithm:
    """The algorithm of that name.

    Raises:
        InputError: No algorithm has that name.
    """
    try:
        return ALGORITHMS[name]
    except KeyError:
        raise InputError(
            f"rl.algorithm is {name!r}, expected one of {', '.join(sorted(ALGORITHMS))}",
            hint="Choose one of them in the config.",
        ) from None
