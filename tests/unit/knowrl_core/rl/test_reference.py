"""The whole objective against one restated from the papers' equations: one sequence a verdict, one token at a time."""

import itertools
import math
import statistics

import pytest
import torch

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.batches import mini_batches
from knowrl_core.rl.checkpoint import TrainerState
from knowrl_core.rl.experience import Experience
from knowrl_core.rl.prepare import fill_in
from knowrl_core.rl.trainer import Trainer, all_logprobs


def naive_tokens(model, prompt, response):
    """Log-probability and entropy of each response token."""
    logits = model(torch.tensor([prompt + response])).logits[0]
    rows = [torch.log_softmax(logits[len(prompt) - 1 + t], -1) for t in range(len(response))]
    return [(row[token], -(row.exp() * row).sum()) for row, token in zip(rows, response, strict=True)]


def estimate(policy, reference, name):
    log_ratio = reference - policy
    if name == "k1":
        return -log_ratio
    exp = torch.exp(log_ratio) if isinstance(log_ratio, torch.Tensor) else math.exp(log_ratio)
    return log_ratio * log_ratio / 2 if name == "k2" else exp - log_ratio - 1


def naive_rewards(name, groups):
    """Rewards of each task's verdicts, shaped as the paper of the algorithm says."""
    shaped = []
    for group in groups:
        mean = sum(group) / len(group)
        if name == "reinforce++":
            shaped.append(list(group))
        elif name == "reinforce++-baseline":
            shaped.append([r - mean for r in group])
        elif name == "grpo":
            shaped.append([(r - mean) / (statistics.stdev(group) + 1e-4) for r in group])
        else:
            shaped.append([r - (sum(group) - r) / (len(group) - 1) for r in group])
    return shaped


def naive(policy, old, reference, rollouts, rl):
    """Loss, clip fraction, k1 and k3 of one step on all rollouts as one batch; gradients are left in ``policy``."""
    groups = [[(g.prompt_token_ids, v) for g in r.prompts for v in g.verdicts] for r in rollouts]
    rewards = naive_rewards(rl.algorithm, [[v.reward for _, v in group] for group in groups])
    verdicts = []  # per verdict: rows of (now, entropy, before, anchor, engine, return)
    for (prompt, verdict), reward in zip(itertools.chain(*groups), itertools.chain(*rewards), strict=True):
        with torch.no_grad():
            before = [x.item() for x, _ in naive_tokens(old, prompt, verdict.response_token_ids)]
            anchor = [x.item() for x, _ in naive_tokens(reference, prompt, verdict.response_token_ids)]
        penalty = rl.kl_coef if rl.kl_in == "reward" else 0.0
        values = [-penalty * estimate(a, b, rl.kl_estimator) for a, b in zip(before, anchor, strict=True)]
        values[-1] += reward
        returns = [sum(values[t:]) for t in range(len(values))]
        now = naive_tokens(policy, prompt, verdict.response_token_ids)
        columns = zip(now, before, anchor, verdict.engine_logprobs, returns, strict=True)
        verdicts.append([(x, h, b, a, e, g) for (x, h), b, a, e, g in columns])
    tokens = [row for rows in verdicts for row in rows]
    mean = sum(row[-1] for row in tokens) / len(tokens)
    deviation = math.sqrt(sum((row[-1] - mean) ** 2 for row in tokens) / len(tokens))
    loss, clipped, k1, k3 = torch.zeros(()), 0, 0.0, 0.0
    for rows in verdicts:
        weight = 1 / len(tokens) if rl.loss_mean == "token" else 1 / (len(verdicts) * len(rows))
        for now, entropy, before, anchor, engine, value in rows:
            advantage = (value - mean) / deviation if rl.algorithm.startswith("reinforce") else value
            start = before if rl.old_logprobs == "recomputed" else engine
            ratio = torch.exp(now - start)
            held = min(max(ratio.item(), 1 - rl.clip), 1 + (rl.clip_high or rl.clip)) * advantage
            term = ratio * advantage
            if held < ratio.item() * advantage:
                clipped += 1
                term = torch.tensor(held)
            if rl.importance_cap is not None:
                term = term * min(math.exp(before - engine), rl.importance_cap)
            part = -term - rl.entropy_coef * entropy
            if rl.kl_in == "loss":
                part = part + rl.kl_coef * estimate(now, anchor, rl.kl_estimator)
            loss = loss + weight * part
            k1 += now.item() - anchor
            k3 += math.exp(anchor - now.item()) - 1 - (anchor - now.item())
    loss.backward()
    return loss.item(), clipped / len(tokens), k1 / len(tokens), k3 / len(tokens)


CASES = {
    "reinforce++": {},
    "checkpointing": {"gradient_checkpointing": True},
    "baseline, k2": {"algorithm": "reinforce++-baseline", "kl_estimator": "k2"},
    "grpo, k3 in loss, sequence mean": {
        "algorithm": "grpo",
        "kl_in": "loss",
        "kl_estimator": "k3",
        "loss_mean": "sequence",
    },
    "grpo, k1 in loss": {"algorithm": "grpo", "kl_in": "loss"},
    "grpo, k3 in reward": {"algorithm": "grpo", "kl_estimator": "k3"},
    "rloo, entropy bonus": {"algorithm": "rloo", "entropy_coef": 0.02},
    "asymmetric clip": {"clip": 0.1, "clip_high": 0.3},
    "importance": {"importance_cap": 1.5},
    "engine's old": {"old_logprobs": "engine", "algorithm": "rloo"},
    "all at once": {
        "algorithm": "grpo",
        "kl_in": "loss",
        "kl_estimator": "k2",
        "loss_mean": "sequence",
        "entropy_coef": 0.01,
        "clip_high": 0.28,
        "importance_cap": 2.0,
    },
}


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_loss_and_gradients(kind, views, changes, make_model, make_rollouts):
    rollouts = make_rollouts(n=4, k=5, views=views, seed=views)
    old, reference, policy = make_model(kind), make_model(kind, 7), make_model(kind)
    with torch.no_grad():  # away from ratio 1, so that the clip has work
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter.add_(noise, alpha=0.01)

    rl = RLConfig(**({"kl_coef": 0.05, "train_batch_size": 100, "micro_token_budget": 64} | changes))
    data = Experience.of(rollouts)
    (mini,) = mini_batches(data, [tuple(range(4))], rl, epoch=0, seed=0)
    data.policy = all_logprobs(old, mini.passes, data.n_tokens, precision="fp32")
    data.reference = all_logprobs(reference, mini.passes, data.n_tokens, precision="fp32")
    fill_in(data, [range(4)], rl)
    sums = Trainer(policy, rl, TrainerState(), {}).backward(mini, data)
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters()])

    policy.zero_grad()
    loss, clip_fraction, k1, k3 = naive(policy, old, reference, rollouts, rl)
    expected = torch.cat([p.grad.flatten() for p in policy.parameters()])
    assert sums.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert sums.clipped / mini.tokens == pytest.approx(clip_fraction)
    assert sums.clipped > 0
    assert sums.k1 / mini.tokens == pytest.approx(k1, rel=1e-5, abs=1e-6)
    assert sums.k3 / mini.tokens == pytest.approx(k3, rel=1e-5, abs=1e-6)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def test_gradient_does_not_depend_on_the_budget(make_model, make_rollouts):
    data = Experience.of(make_rollouts(n=5, k=6))
    gradients = []
    for budget in (64, 4096):
        rl = RLConfig(train_batch_size=100, micro_token_budget=budget)
        (mini,) = mini_batches(data, [tuple(range(5))], rl, epoch=0, seed=0)
        model = make_model("llama")
        data.policy = all_logprobs(model, mini.passes, data.n_tokens, precision="fp32") + 0.05
        fill_in(data, [range(5)], rl.model_copy(update={"kl_coef": 0.0}))
        Trainer(model, rl, TrainerState(), {}).backward(mini, data)
        gradients.append((len(mini.passes), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (many, split), (one, whole) = gradients
    assert many > one == 1
    assert (split - whole).norm() <= 1e-5 * whole.norm()
