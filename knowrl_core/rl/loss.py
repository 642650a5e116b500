"""The clipped policy loss."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ClippedLoss:
    """Loss of one pass and how many of its tokens the clip held back."""

    loss: Tensor
    """[] sum over the pass's tokens divided by the tokens of the whole optimizer step."""
    clipped: Tensor
    """[] number of tokens whose gradient the clip cut off."""


def clipped_loss(logprobs: Tensor, old: Tensor, advantages: Tensor, *, clip: float, step_tokens: int) -> ClippedLoss:
    """PPO's clipped surrogate, mean over tokens (Schulman et al. 2017, arXiv 1707.06347, equation 7).

    ``-1 / step_tokens * sum_t min(rho_t A_t, clamp(rho_t, 1 - clip, 1 + clip) A_t)`` with
    ``rho_t = exp(logprobs_t - old_t)``. Since the sum is divided by the tokens of the step and not of the pass, the
    gradients of all passes of a step add up to the same whatever way its tokens are split.

    Args:
        logprobs: [N] log-probabilities of the response tokens by the policy, with gradient.
        old: [N] the same before the first step.
        advantages: [N] advantages.
        clip: Half width of the interval that the ratio is held in.
        step_tokens: Response tokens of the whole optimizer step.
    """
    ratio = torch.exp(logprobs - old)
    plain = ratio * advantages
    held = torch.clamp(ratio, 1.0 - clip, 1.0 + clip) * advantages
    return ClippedLoss(
        loss=-torch.minimum(plain, held).sum() / step_tokens,
        clipped=(held < plain).sum(),
    )
