"""Hand-computed cases; the arithmetic stands beside the numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowrl_core.errors import InputError
from knowrl_core.rl.advantages import (
    ALGORITHMS,
    Penalty,
    RolloutBatch,
    algorithm,
    grpo,
    left_out_mean,
    reinforce_pp,
    reinforce_pp_baseline,
    returns_to_go,
    rloo,
    standardised,
    token_rewards,
    whiten,
)
from knowrl_core.rl.kl import kl_estimate

# Two verdicts: the first of 2 tokens earns 1, the second of 1 token earns 0. KL coefficient 0.1.
BATCH = RolloutBatch(
    rewards=np.array([1.0, 0.0]),
    lengths=np.array([2, 1]),
    tasks=np.array([0, 0]),
    policy=np.array([-1.0, -2.0, -0.5]),
    reference=np.array([-1.5, -1.0, -0.5]),
)
# Two tasks of three verdicts, one token each: rewards 1 1 0 and 0 0 0.
TASKS = RolloutBatch(
    rewards=np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
    lengths=np.ones(6, dtype=np.int64),
    tasks=np.array([0, 0, 0, 1, 1, 1]),
    policy=np.zeros(6),
    reference=None,
)
NONE = Penalty(0.0)


def test_kl_estimators():
    # d: -1 - -1.5 = 0.5;  -2 - -1 = -1;  0
    # k2: 0.25 / 2 = 0.125;  1 / 2 = 0.5;  0
    # k3: exp(-0.5) - 1 + 0.5 = 0.6065307 - 0.5 = 0.1065307;  exp(1) - 1 - 1 = 0.7182818;  0
    for name, expected in {"k1": [0.5, -1, 0], "k2": [0.125, 0.5, 0], "k3": [0.1065307, 0.7182818, 0]}.items():
        np.testing.assert_allclose(kl_estimate(BATCH.policy, BATCH.reference, name), expected, atol=1e-6)


def test_token_rewards():
    # -0.1 * 0.5 = -0.05;  1 - 0.1 * -1 = 1.1;  0 - 0.1 * 0 = 0
    np.testing.assert_allclose(token_rewards(BATCH, BATCH.rewards, Penalty(0.1)), [-0.05, 1.1, 0.0], atol=1e-12)
    # k2: -0.1 * 0.125 = -0.0125;  1 - 0.1 * 0.5 = 0.95;  0
    np.testing.assert_allclose(token_rewards(BATCH, BATCH.rewards, Penalty(0.1, "k2")), [-0.0125, 0.95, 0], atol=1e-12)


def test_returns_to_go_do_not_cross_verdicts():
    # -0.05 + 1.1 = 1.05;  1.1;  0
    np.testing.assert_allclose(returns_to_go(np.array([-0.05, 1.1, 0.0]), BATCH.lengths), [1.05, 1.1, 0.0], atol=1e-12)


def test_whitening_uses_the_biased_deviation():
    # mean (1 + 2 + 6) / 3 = 3; variance (4 + 1 + 9) / 3 = 14/3; deviation 2.1602469
    # -2 / 2.1602469 = -0.9258201;  -1 / ... = -0.4629100;  3 / ... = 1.3887301
    np.testing.assert_allclose(whiten(np.array([1.0, 2.0, 6.0])), [-0.9258201, -0.4629100, 1.3887301], atol=1e-6)


def test_reinforce_pp():
    # returns 1.05, 1.1, 0: mean 2.15 / 3 = 0.7166667
    # centred 0.3333333, 0.3833333, -0.7166667; squares 0.1111111 + 0.1469444 + 0.5136111 = 0.7716667
    # variance 0.2572222, deviation 0.5071708
    # 0.3333333 / 0.5071708 = 0.6572408;  0.3833333 / ... = 0.7558269;  -0.7166667 / ... = -1.4130677
    np.testing.assert_allclose(reinforce_pp(BATCH, Penalty(0.1)), [0.6572408, 0.7558269, -1.4130677], atol=1e-6)


def test_reinforce_pp_baseline():
    # rewards less their mean 0.5: 0.5, -0.5; token rewards -0.05, 0.5 + 0.1 = 0.6, -0.5; returns 0.55, 0.6, -0.5
    # mean 0.65 / 3 = 0.2166667; centred 0.3333333, 0.3833333, -0.7166667: as above, since a shift of all by -0.5
    np.testing.assert_allclose(
        reinforce_pp_baseline(BATCH, Penalty(0.1)), [0.6572408, 0.7558269, -1.4130677], atol=1e-6
    )
    # tasks: 1/3 1/3 -2/3 and 0 0 0; mean 0; variance (1/9 + 1/9 + 4/9) / 6 = 1/9; deviation 1/3
    np.testing.assert_allclose(reinforce_pp_baseline(TASKS, NONE), [1, 1, -2, 0, 0, 0], atol=1e-9)


def test_grpo():
    # task 0: mean 2/3; unbiased variance (1/9 + 1/9 + 4/9) / 2 = 1/3; deviation 0.5773503
    # 1/3 / (0.5773503 + 0.0001) = 0.5772503;  -2/3 / 0.5774503 = -1.1545006; task 1: all equal
    np.testing.assert_allclose(grpo(TASKS, NONE), [0.5772503, 0.5772503, -1.1545006, 0, 0, 0], atol=1e-6)
    # BATCH: mean 0.5; deviation sqrt(2 * 0.25 / 1) = 0.7071068; +-0.5 / 0.7072068 = +-0.7070068
    # token rewards -0.05, 0.7070068 + 0.1, -0.7070068; returns 0.7570068, 0.8070068, -0.7070068
    np.testing.assert_allclose(grpo(BATCH, Penalty(0.1)), [0.7570068, 0.8070068, -0.7070068], atol=1e-6)


def test_rloo():
    # task 0: 1 - (1 + 0) / 2 = 0.5;  the same;  0 - (1 + 1) / 2 = -1; task 1: 0
    np.testing.assert_allclose(rloo(TASKS, NONE), [0.5, 0.5, -1, 0, 0, 0], atol=1e-12)


def test_groups_of_one_teach_nothing():
    assert standardised(np.array([1.0])).tolist() == [0.0]
    assert left_out_mean(np.array([1.0])).tolist() == [0.0]


def test_without_reference_every_token_of_a_verdict_has_the_same_advantage():
    batch = RolloutBatch(BATCH.rewards, BATCH.lengths, BATCH.tasks, BATCH.policy, None)
    # returns 1, 1, 0: mean 2/3, variance (1/9 + 1/9 + 4/9) / 3 = 2/9, deviation 0.4714045
    # 1/3 / 0.4714045 = 0.7071068;  -2/3 / 0.4714045 = -1.4142136
    np.testing.assert_allclose(reinforce_pp(batch, Penalty(0.1)), [0.7071068, 0.7071068, -1.4142136], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_unanimous_groups_give_exact_zeros(name, value):
    batch = RolloutBatch(np.full(6, value), TASKS.lengths, TASKS.tasks, TASKS.policy, None)
    assert algorithm(name)(batch, NONE).tolist() == [0.0] * 6


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_no_variance_gives_exact_zeros(value):
    assert whiten(np.full(7, value)).tolist() == [0.0] * 7
    assert whiten(np.array([value])).tolist() == [0.0]
    assert whiten(np.array([])).tolist() == []


def test_tiny_variance_is_not_amplified_beyond_the_floor():
    # deviation 1e-6 < sqrt(1e-8) = 1e-4: divided by 1e-4
    np.testing.assert_allclose(whiten(np.array([1.0 - 1e-6, 1.0 + 1e-6])), [-0.01, 0.01], atol=1e-6)


@st.composite
def random_batches(draw):
    tasks = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    groups = np.repeat(np.arange(len(tasks)), tasks)
    n = len(groups)
    lengths = np.array(draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)))
    values = st.floats(-5, 0)
    tokens = int(lengths.sum())
    return RolloutBatch(
        rewards=np.array(draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n))),
        lengths=lengths,
        tasks=groups,
        policy=np.array(draw(st.lists(values, min_size=tokens, max_size=tokens))),
        reference=np.array(draw(st.lists(values, min_size=tokens, max_size=tokens))),
    )


@settings(max_examples=60, deadline=None)
@given(batch=random_batches(), name=st.sampled_from(sorted(ALGORITHMS)), coef=st.sampled_from([0.0, 0.1]))
def test_whatever_the_batch(batch, name, coef):
    values = algorithm(name)(batch, Penalty(coef))
    assert values.shape == batch.policy.shape
    assert np.isfinite(values).all()
    if coef == 0.0:
        # all tokens of a verdict share its advantage; a group baseline sums to zero over each task's verdicts
        firsts = values[np.cumsum(batch.lengths) - batch.lengths]
        np.testing.assert_array_equal(values, np.repeat(firsts, batch.lengths))
        if name in ("grpo", "rloo"):
            for task in np.unique(batch.tasks):
                assert firsts[batch.tasks == task].sum() == pytest.approx(0, abs=1e-9)
    # the order of the verdicts within the batch does not matter
    order = np.arange(len(batch.rewards))[::-1]
    pieces = np.split(np.arange(len(batch.policy)), np.cumsum(batch.lengths)[:-1])
    tokens = np.concatenate([pieces[v] for v in order])
    turned = RolloutBatch(
        batch.rewards[order], batch.lengths[order], batch.tasks[order], batch.policy[tokens], batch.reference[tokens]
    )
    np.testing.assert_allclose(algorithm(name)(turned, Penalty(coef)), values[tokens], atol=1e-9)


def test_unknown_algorithm():
    with pytest.raises(InputError, match=r"rl.algorithm is 'ppo', expected one of grpo, reinforce\+\+"):
        algorithm("ppo")
