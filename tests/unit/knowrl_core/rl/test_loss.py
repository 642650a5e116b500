"""Hand-computed cases; the arithmetic stands beside the numbers."""

import math

import pytest
import torch

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.head import TokenOutput
from knowrl_core.rl.loss import TokenBatch, policy_gradient_loss, supervised_loss
from knowrl_core.rl.schedule import learning_rate

OLD = torch.full((4,), -1.0)
RATIOS = torch.tensor([1.5, 0.5, 1.1, 0.5])
ADVANTAGES = torch.tensor([1.0, -1.0, 2.0, 1.0])


def case(rl: RLConfig, **known):
    logprobs = (OLD + RATIOS.log()).requires_grad_()
    entropy = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    fields = {"old": OLD, "advantages": ADVANTAGES, "weights": torch.full((4,), 0.25)}
    result = policy_gradient_loss(TokenOutput(logprobs, entropy), TokenBatch(**(fields | known)), rl)
    result.loss.backward()
    return result, logprobs.grad, entropy.grad


def test_clipped_loss():
    # ratios 1.5, 0.5, 1.1, 0.5; advantages 1, -1, 2, 1; clip 0.2
    # min(1.5, 1.2) = 1.2 clipped;  min(-0.5, -0.8) = -0.8 clipped
    # min(2.2, 2.2) = 2.2 not clipped;  min(0.5, 0.8) = 0.5 not clipped
    # -(1.2 - 0.8 + 2.2 + 0.5) / 4 = -0.775
    result, gradient, _ = case(RLConfig(kl_coef=0.0))
    assert result.loss.item() == pytest.approx(-0.775, abs=1e-6)
    assert result.clipped.item() == 2
    # d/dlogprob = -ratio * advantage / 4 where not clipped, else 0: 0, 0, -1.1 * 2 / 4, -0.5 * 1 / 4
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, -0.55, -0.125]), atol=1e-6, rtol=0)


def test_asymmetric_clip():
    # upper bound 1.4, lower 0.8: min(1.5, 1.4) = 1.4;  -0.8;  2.2;  0.5: -(1.4 - 0.8 + 2.2 + 0.5) / 4 = -0.825
    result, _, _ = case(RLConfig(kl_coef=0.0, clip_high=0.4))
    assert result.loss.item() == pytest.approx(-0.825, abs=1e-6)
    assert result.clipped.item() == 2
    # upper bound 1.6: 1.5 is inside: -(1.5 - 0.8 + 2.2 + 0.5) / 4 = -0.85
    result, _, _ = case(RLConfig(kl_coef=0.0, clip_high=0.6))
    assert result.loss.item() == pytest.approx(-0.85, abs=1e-6)


def test_importance():
    # terms 1.2, -0.8, 2.2, 0.5 times 2, 1, 0.5, 1: 2.4 - 0.8 + 1.1 + 0.5 = 3.2; -3.2 / 4 = -0.8
    result, _, _ = case(RLConfig(kl_coef=0.0), importance=torch.tensor([2.0, 1.0, 0.5, 1.0]))
    assert result.loss.item() == pytest.approx(-0.8, abs=1e-6)


@pytest.mark.parametrize(
    ("estimator", "kl", "slope"),
    [
        # reference = old: d = ln ratio = 0.4054651, -0.6931472, 0.0953102, -0.6931472; sum -0.8855191; / 4
        ("k1", -0.2213798, [1.0, 1.0, 1.0, 1.0]),
        # d^2 / 2: 0.0822010 + 0.2402265 + 0.0045420 + 0.2402265 = 0.5671960; / 4; slope d
        ("k2", 0.1417990, [0.4054651, -0.6931472, 0.0953102, -0.6931472]),
        # 1 / ratio - 1 + d: 0.0721318 + 0.3068528 + 0.0044011 + 0.3068528 = 0.6902385; / 4; slope 1 - 1 / ratio
        ("k3", 0.1725596, [0.3333333, -1.0, 0.0909091, -1.0]),
    ],
)
def test_kl_in_the_loss(estimator, kl, slope):
    rl = RLConfig(kl_coef=0.1, kl_in="loss", kl_estimator=estimator)
    result, gradient, _ = case(rl, reference=OLD)
    assert result.loss.item() == pytest.approx(-0.775 + 0.1 * kl, abs=1e-6)
    assert result.policy.item() == pytest.approx(-0.775, abs=1e-6)
    expected = torch.tensor([0.0, 0.0, -0.55, -0.125]) + 0.1 * torch.tensor(slope) / 4
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)
    # measured beside it, whatever the penalty: sums of k1 and k3
    torch.testing.assert_close(result.kl, torch.tensor([-0.8855191, 0.6902385]).double(), atol=1e-6, rtol=0)


def test_entropy_bonus():
    # mean entropy (1 + 2 + 3 + 4) / 4 = 2.5; -0.775 - 0.01 * 2.5 = -0.8
    result, _, gradient = case(RLConfig(kl_coef=0.0, entropy_coef=0.01))
    assert result.loss.item() == pytest.approx(-0.8, abs=1e-6)
    torch.testing.assert_close(gradient, torch.full((4,), -0.0025))


def test_sequence_mean():
    # verdicts of 3 and 1 tokens: weights 1/6, 1/6, 1/6, 1/2
    # -(1.2 - 0.8 + 2.2) / 6 - 0.5 / 2 = -0.4333333 - 0.25 = -0.6833333
    weights = torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    result, _, _ = case(RLConfig(kl_coef=0.0, loss_mean="sequence"), weights=weights)
    assert result.loss.item() == pytest.approx(-0.6833333, abs=1e-6)


def test_at_ratio_one_the_gradient_is_reinforce():
    old = torch.tensor([-1.0, -2.0])
    logprobs = old.clone().requires_grad_()
    batch = TokenBatch(old, torch.tensor([3.0, -5.0]), torch.full((2,), 0.5))
    result = policy_gradient_loss(TokenOutput(logprobs, torch.zeros(2)), batch, RLConfig(kl_coef=0.0))
    result.loss.backward()
    # -(3 - 5) / 2 = 1; gradient -advantage / 2
    assert result.loss.item() == pytest.approx(1.0, abs=1e-6)
    assert result.clipped.item() == 0
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.5, 2.5]))


def test_supervised_loss():
    # -(-1 * 0.25 - 2 * 0.75) = 1.75
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    batch = TokenBatch(torch.zeros(2), torch.zeros(2), torch.tensor([0.25, 0.75]))
    result = supervised_loss(TokenOutput(logprobs, torch.zeros(2)), batch)
    assert result.loss.item() == pytest.approx(1.75)
    result.loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([-0.25, -0.75]))


def test_parts_of_a_step_add_up_to_the_whole():
    old, new, advantages = (torch.randn(9, generator=torch.Generator().manual_seed(i)) for i in range(3))

    def loss(span: slice) -> float:
        batch = TokenBatch(old[span], advantages[span], torch.full((9,), 1 / 9)[span])
        return policy_gradient_loss(TokenOutput(new[span], torch.zeros(9)[span]), batch, RLConfig()).loss.item()

    assert math.isclose(loss(slice(4)) + loss(slice(4, 9)), loss(slice(9)), rel_tol=1e-6)


def test_schedule():
    # 4 steps of warm-up to 1e-3: 0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3
    rl = RLConfig(learning_rate=1e-3, warmup_steps=4)
    assert [learning_rate(s, rl) for s in range(1, 6)] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])
    assert learning_rate(1, RLConfig(learning_rate=1e-3)) == 1e-3
    with pytest.raises(ValueError, match="expected at least 1"):
        learning_rate(0, rl)


def test_decay():
    # peak at step 2, then 4 steps down to 2e-4: linear 1, 0.8, 0.6, 0.4, 0.2 of 1e-3, and stays there
    rl = RLConfig(learning_rate=1e-3, warmup_steps=2, decay_steps=4, min_learning_rate=2e-4)
    rates = [learning_rate(s, rl) for s in range(1, 9)]
    assert rates == pytest.approx([0.5e-3, 1e-3, 0.8e-3, 0.6e-3, 0.4e-3, 0.2e-3, 0.2e-3, 0.2e-3])
    # cosine half-way: 2e-4 + 8e-4 * (1 + cos(pi / 2)) / 2 = 6e-4; a quarter: 2e-4 + 8e-4 * 0.8535534 = 8.828427e-4
    cosine = rl.model_copy(update={"schedule": "cosine"})
    assert learning_rate(4, cosine) == pytest.approx(6e-4)
    assert learning_rate(3, cosine) == pytest.approx(8.828427e-4)
