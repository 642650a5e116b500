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

VARIANCE_FLOOR: Final = 1e-8
"""Smallest variance that whitening divides by, as in OpenRLHF (``var.clamp(min=1e-8).rsqrt()``)."""


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """What an algorithm sees: ``V`` verdicts with ``N`` response tokens, verdict after verdict."""

    rewards: Floats
    """[V] reward of each verdict."""
    lengths: Ints
    """[V] response tokens of each verdict, all at least 1, together N."""
    tasks: Ints
    """[V] the task that each verdict belongs to; algorithms with group baselines group by it."""
    policy: Floats
    """[N] log-probabilities by the policy before the first step."""
    reference: Floats | None
    """[N] log-probabilities by the reference; None turns the KL penalty off."""


Algorithm = Callable[[RolloutBatch, float], Floats]
"""``(batch, kl_coef) -> advantages [N]``."""


def k1(policy: Floats, reference: Floats) -> Floats:
    """Estimate of KL(policy || reference) for tokens drawn from the policy: ``log policy - log reference``.

    Unbiased; single values may be negative (Schulman 2020, "Approximating KL Divergence", estimator k1).
    """
    return policy - reference


def token_rewards(batch: RolloutBatch, kl_coef: float) -> Floats:
    """[N] ``r_t = [t is the last token] R - kl_coef * k1_t`` (REINFORCE++, arXiv 2501.03262, equations 8 and 9)."""
    rewards = np.zeros(int(batch.lengths.sum()))
    if batch.reference is not None:
        rewards -= kl_coef * k1(batch.policy, batch.reference)
    rewards[np.cumsum(batch.lengths) - 1] += batch.rewards
    return rewards


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


def reinforce_pp(batch: RolloutBatch, kl_coef: float) -> Floats:
    """REINFORCE++ (arXiv 2501.03262): returns of the penalised token rewards, whitened over the batch's tokens."""
    return whiten(returns_to_go(token_rewards(batch, kl_coef), batch.lengths))


ALGORITHMS: Final[dict[str, Algorithm]] = {"reinforce++": reinforce_pp}
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
