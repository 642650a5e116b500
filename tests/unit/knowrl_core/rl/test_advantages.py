"""Hand-computed cases; the arithmetic stands beside the numbers."""

import numpy as np
import pytest

from knowrl_core.errors import InputError
from knowrl_core.rl.advantages import RolloutBatch, algorithm, k1, reinforce_pp, returns_to_go, token_rewards, whiten

# Two verdicts: the first of 2 tokens earns 1, the second of 1 token earns 0. KL coefficient 0.1.
BATCH = RolloutBatch(
    rewards=np.array([1.0, 0.0]),
    lengths=np.array([2, 1]),
    tasks=np.array([0, 0]),
    policy=np.array([-1.0, -2.0, -0.5]),
    reference=np.array([-1.5, -1.0, -0.5]),
)


def test_k1():
    # -1 - -1.5 = 0.5;  -2 - -1 = -1;  -0.5 - -0.5 = 0
    np.testing.assert_allclose(k1(BATCH.policy, BATCH.reference), [0.5, -1.0, 0.0], atol=1e-12)


def test_token_rewards():
    # -0.1 * 0.5 = -0.05;  1 - 0.1 * -1 = 1.1;  0 - 0.1 * 0 = 0
    np.testing.assert_allclose(token_rewards(BATCH, 0.1), [-0.05, 1.1, 0.0], atol=1e-12)


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
    np.testing.assert_allclose(reinforce_pp(BATCH, 0.1), [0.6572408, 0.7558269, -1.4130677], atol=1e-6)


def test_without_reference_every_token_of_a_verdict_has_the_same_advantage():
    batch = RolloutBatch(BATCH.rewards, BATCH.lengths, BATCH.tasks, BATCH.policy, None)
    # returns 1, 1, 0: mean 2/3, variance (1/9 + 1/9 + 4/9) / 3 = 2/9, deviation 0.4714045
    # 1/3 / 0.4714045 = 0.7071068;  -2/3 / 0.4714045 = -1.4142136
    np.testing.assert_allclose(reinforce_pp(batch, 0.1), [0.7071068, 0.7071068, -1.4142136], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_no_variance_gives_exact_zeros(value):
    assert whiten(np.full(7, value)).tolist() == [0.0] * 7
    assert whiten(np.array([value])).tolist() == [0.0]
    assert whiten(np.array([])).tolist() == []


def test_tiny_variance_is_not_amplified_beyond_the_floor():
    # deviation 1e-6 < sqrt(1e-8) = 1e-4: divided by 1e-4
    np.testing.assert_allclose(whiten(np.array([1.0 - 1e-6, 1.0 + 1e-6])), [-0.01, 0.01], atol=1e-6)


def test_unknown_algorithm():
    with pytest.raises(InputError, match=r"rl.algorithm is 'ppo', expected one of reinforce\+\+"):
        algorithm("ppo")
