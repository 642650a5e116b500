"""The loss of a pass: clipped policy gradient with KL and entropy terms, or the likelihood of a warm-up."""

from dataclasses import dataclass

import torch
from torch import Tensor

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.head import TokenOutput
from knowrl_core.rl.kl import kl_estimate


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """What is known of the ``N`` response tokens of a pass before the step, all [N]."""

    old: Tensor
    """Log-probabilities that the ratio is taken to."""
    advantages: Tensor
    """Advantages."""
    weights: Tensor
    """Share of each token in the mean of the whole optimizer step; they add up to 1 over its passes. So gradients of
    all passes add up to the same whatever way the step's tokens are split."""
    importance: Tensor | None = None
    """Truncated importance weights of the engine's samples; None for 1."""
    reference: Tensor | None = None
    """Log-probabilities by the reference, if there is one."""


@dataclass(frozen=True, slots=True)
class PassLoss:
    """The loss of a pass, with gradient, and sums over its tokens, without."""

    loss: Tensor
    """[] what is minimised: ``policy + kl_coef * KL - entropy_coef * entropy`` with the terms that are on."""
    policy: Tensor
    """[] clipped policy loss."""
    clipped: Tensor
    """[] number of tokens whose gradient the clip cut off."""
    entropy: Tensor
    """[] sum of the token entropies, nats."""
    kl: Tensor
    """[2] sums of the k1 and k3 estimates of KL(policy || reference); zeros without a reference."""


def policy_gradient_loss(output: TokenOutput, batch: TokenBatch, rl: RLConfig) -> PassLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, equation 7) with its extensions.

    ``sum_t w_t ( -c_t min(rho_t A_t, clamp(rho_t, 1 - clip, 1 + clip_high) A_t) + beta KL_t - eta H_t )`` with
    ``rho_t = exp(log policy - log old)``. Asymmetric clip: DAPO (arXiv 2503.14476, equation 10). ``c_t``: truncated
    importance sampling for an engine that computes otherwise than the trainer (Yao et al. 2025).

    Args:
        output: What the policy says of the tokens now.
        batch: What is known of them.
        rl: Clip, coefficients, estimator.
    """
    ratio = torch.exp(output.logprobs - batch.old)
    high = rl.clip if rl.clip_high is None else rl.clip_high
    plain = ratio * batch.advantages
    held = torch.clamp(ratio, 1.0 - rl.clip, 1.0 + high) * batch.advantages
    surrogate = torch.minimum(plain, held)
    if batch.importance is not None:
        surrogate = surrogate * batch.importance
    policy = -(surrogate * batch.weights).sum()
    loss = policy
    if batch.reference is not None and rl.kl_in == "loss" and rl.kl_coef:
        kl = kl_estimate(output.logprobs, batch.reference, rl.kl_estimator)
        loss = loss + rl.kl_coef * (kl * batch.weights).sum()
    if rl.entropy_coef:
        loss = loss - rl.entropy_coef * (output.entropy * batch.weights).sum()
    return _pass_loss(loss, policy, (held < plain).sum(), output, batch)


def supervised_loss(output: TokenOutput, batch: TokenBatch) -> PassLoss:
    """Weighted mean of the negative log-likelihood of the tokens."""
    loss = -(output.logprobs * batch.weights).sum()
    return _pass_loss(loss, loss, torch.zeros((), device=loss.device), output, batch)


def _pass_loss(loss: Tensor, policy: Tensor, clipped: Tensor, output: TokenOutput, batch: TokenBatch) -> PassLoss:
    with torch.no_grad():
        entropy = output.entropy.double().sum()
        if batch.reference is None:
            kl = torch.zeros(2, dtype=torch.float64, device=entropy.device)
        else:
            now, reference = output.logprobs.double(), batch.reference.double()
            kl = torch.stack([kl_estimate(now, reference, name).sum() for name in ("k1", "k3")])
    return PassLoss(loss, policy.detach(), clipped.detach(), entropy, kl)
