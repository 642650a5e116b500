"""Hand-computed cases; the arithmetic stands beside the numbers."""

import math

import pytest
import torch

from knowrl_core.rl.loss import clipped_loss
from knowrl_core.rl.schedule import learning_rate


def test_clipped_loss():
    # ratios 1.5, 0.5, 1.1, 0.5; advantages 1, -1, 2, 1; clip 0.2
    # min(1.5, 1.2) = 1.2 clipped;  min(-0.5, -0.8) = -0.8 clipped
    # min(2.2, 2.2) = 2.2 not clipped;  min(0.5, 0.8) = 0.5 not clipped
    # -(1.2 - 0.8 + 2.2 + 0.5) / 4 = -0.775
    old = torch.full((4,), -1.0)
    logprobs = (old + torch.tensor([1.5, 0.5, 1.1, 0.5]).log()).requires_grad_()
    result = clipped_loss(logprobs, old, torch.tensor([1.0, -1.0, 2.0, 1.0]), clip=0.2, step_tokens=4)
    assert result.loss.item() == pytest.approx(-0.775, abs=1e-6)
    assert result.clipped.item() == 2
    result.loss.backward()
    # d/dlogprob = -ratio * advantage / 4 where not clipped, else 0: 0, 0, -1.1 * 2 / 4, -0.5 * 1 / 4
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, 0.0, -0.55, -0.125]), atol=1e-6, rtol=0)


def test_at_ratio_one_the_gradient_is_reinforce():
    old = torch.tensor([-1.0, -2.0])
    logprobs = old.clone().requires_grad_()
    result = clipped_loss(logprobs, old, torch.tensor([3.0, -5.0]), clip=0.2, step_tokens=2)
    result.loss.backward()
    # -(3 - 5) / 2 = 1; gradient -advantage / 2
    assert result.loss.item() == pytest.approx(1.0, abs=1e-6)
    assert result.clipped.item() == 0
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.5, 2.5]))


def test_parts_of_a_step_add_up_to_the_whole():
    old, new, advantages = (torch.randn(9, generator=torch.Generator().manual_seed(i)) for i in range(3))
    whole = clipped_loss(new, old, advantages, clip=0.2, step_tokens=9).loss
    parts = [clipped_loss(new[s], old[s], advantages[s], clip=0.2, step_tokens=9).loss for s in (slice(4), slice(4, 9))]
    assert math.isclose(sum(p.item() for p in parts), whole.item(), rel_tol=1e-6)


def test_schedule():
    # 4 steps of warm-up to 1e-3: 0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3
    rates = [learning_rate(step, peak=1e-3, warmup_steps=4) for step in range(1, 6)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3], abs=1e-12)
    assert learning_rate(1, peak=1e-3, warmup_steps=0) == 1e-3
    with pytest.raises(ValueError, match="expected at least 1"):
        learning_rate(0, peak=1e-3, warmup_steps=0)
