"""Balanced batches and advantages; the arithmetic stands beside the numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowrl_core.rl.balance import balanced, spread
from knowrl_core.rl.batches import rollout_batches


def test_balanced_advantages():
    # feasible 3 tokens: 1, 1, -2 (mean 0); infeasible 1 token alone: equal to its mean, zero
    # weights: n / (m n_c) = 4 / (2 * 3) = 2/3
    values = balanced(np.array([1.0, 1.0, -2.0, 5.0]), ["feasible"] * 3 + ["infeasible"])
    np.testing.assert_allclose(values, [2 / 3, 2 / 3, -4 / 3, 0.0])
    # feasible 1 -1 (mean 0, weight 6 / (2 * 2) = 1.5); infeasible 3 3 3 -1 (mean 2, weight 6 / (2 * 4) = 0.75)
    values = balanced(np.array([1.0, -1, 3, 3, 3, -1]), ["feasible"] * 2 + ["infeasible"] * 4)
    np.testing.assert_allclose(values, [1.5, -1.5, 0.75, 0.75, 0.75, -2.25])


def test_a_lean_to_one_label_moves_nothing():
    # every verdict is "feasible"; tasks labelled feasible earn 1, the others 0: nothing tells tasks of a label apart
    assert not balanced(np.array([0.7, 0.7, 0.7, -1.9]), ["feasible"] * 3 + ["infeasible"]).any()


labels = st.sampled_from(["feasible", "infeasible", None])


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.floats(-3, 3), labels), min_size=1, max_size=30))
def test_each_label_sums_to_zero(rows):
    values = np.array([value for value, _ in rows])
    kinds = [label for _, label in rows]
    got = balanced(values, kinds)
    for kind in set(kinds):
        assert got[[label == kind for label in kinds]].sum() == pytest.approx(0, abs=1e-7)


def test_spread():
    # a at 1/8, 3/8, 5/8, 7/8; b at 1/4, 3/4
    assert spread([[0, 1, 2, 3], [8, 9]]) == [0, 8, 1, 2, 9, 3]
    assert spread([[], [5]]) == [5]


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(labels, min_size=1, max_size=60), size=st.integers(1, 20), seed=st.integers(0, 9))
def test_batches_hold_each_label_evenly(kinds, size, seed):
    batches = rollout_batches(kinds, size=size, seed=seed, balance=True)
    assert sorted(i for batch in batches for i in batch) == list(range(len(kinds)))
    for kind in set(kinds):
        share = kinds.count(kind) / len(kinds)
        for batch in batches:
            # with three labels each boundary may be off by less than two
            assert abs(sum(kinds[i] == kind for i in batch) - share * len(batch)) < 4
