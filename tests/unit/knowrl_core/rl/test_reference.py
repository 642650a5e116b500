"""The whole objective against one restated from the equations: one sequence a verdict, one token at a time."""

import math

import pytest
import torch

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.batches import mini_batches
from knowrl_core.rl.checkpoint import TrainerState
from knowrl_core.rl.experience import Experience
from knowrl_core.rl.trainer import Trainer, all_logprobs
from knowrl_core.rl.update import _advantages


def naive_logprobs(model, prompt, response):
    logits = model(torch.tensor([prompt + response])).logits[0]
    return [torch.log_softmax(logits[len(prompt) - 1 + t], -1)[token] for t, token in enumerate(response)]


def naive(policy, old, reference, rollouts, *, kl_coef, clip):
    """Loss, clip fraction, KL of one step on all rollouts as one batch; gradients are left in ``policy``."""
    samples = [(g.prompt_token_ids, v) for r in rollouts for g in r.prompts for v in g.verdicts]
    returns, ratios, kls = [], [], []
    for prompt, verdict in samples:
        with torch.no_grad():
            before = [float(x) for x in naive_logprobs(old, prompt, verdict.response_token_ids)]
            anchor = [float(x) for x in naive_logprobs(reference, prompt, verdict.response_token_ids)]
        now = naive_logprobs(policy, prompt, verdict.response_token_ids)
        rewards = [-kl_coef * (a - b) for a, b in zip(before, anchor, strict=True)]
        rewards[-1] += verdict.reward
        returns += [sum(rewards[t:]) for t in range(len(rewards))]
        ratios += [torch.exp(a - b) for a, b in zip(now, before, strict=True)]
        kls += [a.item() - b for a, b in zip(now, anchor, strict=True)]
    n = len(returns)
    mean = sum(returns) / n
    deviation = math.sqrt(sum((x - mean) ** 2 for x in returns) / n)
    loss, clipped = torch.zeros(()), 0
    for ratio, value in zip(ratios, returns, strict=True):
        advantage = (value - mean) / deviation
        held = min(max(ratio.item(), 1 - clip), 1 + clip) * advantage
        if held < ratio.item() * advantage:
            clipped += 1
            loss = loss - held / n
        else:
            loss = loss - ratio * advantage / n
    loss.backward()
    return loss.item(), clipped / n, sum(kls) / n


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients(kind, views, checkpointing, make_model, make_rollouts):
    rollouts = make_rollouts(n=4, k=5, views=views, seed=views)
    old, reference, policy = make_model(kind), make_model(kind, 7), make_model(kind)
    with torch.no_grad():  # away from ratio 1, so that the clip has work
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter.add_(noise, alpha=0.01)

    rl = RLConfig(kl_coef=0.05, train_batch_size=100, micro_token_budget=64, gradient_checkpointing=checkpointing)
    data = Experience.of(rollouts)
    (mini,) = mini_batches(data, [tuple(range(4))], rl, epoch=0, seed=0)
    data.policy = all_logprobs(old, mini.passes, data.n_tokens, precision="fp32")
    data.reference = all_logprobs(reference, mini.passes, data.n_tokens, precision="fp32")
    data.advantages = _advantages(data, [range(4)], rl.algorithm, rl.kl_coef)
    sums = Trainer(policy, rl, TrainerState(), {}).backward(mini, data)
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters()])

    policy.zero_grad()
    loss, clip_fraction, kl = naive(policy, old, reference, rollouts, kl_coef=0.05, clip=0.2)
    expected = torch.cat([p.grad.flatten() for p in policy.parameters()])
    assert sums.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert sums.clipped / mini.tokens == pytest.approx(clip_fraction)
    assert sums.clipped > 0
    assert sums.kl / mini.tokens == pytest.approx(kl, rel=1e-5, abs=1e-6)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def test_gradient_does_not_depend_on_the_budget(make_model, make_rollouts):
    data = Experience.of(make_rollouts(n=5, k=6))
    gradients = []
    for budget in (64, 4096):
        rl = RLConfig(train_batch_size=100, micro_token_budget=budget)
        (mini,) = mini_batches(data, [tuple(range(5))], rl, epoch=0, seed=0)
        model = make_model("llama")
        data.policy = all_logprobs(model, mini.passes, data.n_tokens, precision="fp32") + 0.05
        data.advantages = _advantages(data, [range(5)], rl.algorithm, 0.0)
        Trainer(model, rl, TrainerState(), {}).backward(mini, data)
        gradients.append((len(mini.passes), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (many, split), (one, whole) = gradients
    assert many > one == 1
    assert (split - whole).norm() <= 1e-5 * whole.norm()
