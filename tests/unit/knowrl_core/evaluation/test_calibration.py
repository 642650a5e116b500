"""Temperature scaling against a grid, and what it must never do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.evaluation.calibration import calibrated, fit_temperature

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def nll(pairs, temperature):
    """Mean negative log-likelihood, written out."""
    total = 0.0
    for score, infeasible in pairs:
        p = min(max(score, 1e-6), 1 - 1e-6)
        z = math.log(p / (1 - p)) / temperature
        total += math.log1p(math.exp(-z if infeasible else z)) if abs(z) < 700 else max(0.0, -z if infeasible else z)
    return total / len(pairs)


@given(PAIRS)
def test_it_is_as_good_as_the_best_of_a_grid(pairs):
    found = fit_temperature(*zip(*pairs, strict=True))
    assert found.nll_before == pytest.approx(nll(pairs, 1.0), rel=1e-9)
    assert found.nll_after == pytest.approx(nll(pairs, found.temperature), rel=1e-6, abs=1e-9)
    assert found.nll_after <= found.nll_before
    best = min(nll(pairs, temperature) for temperature in np.exp(np.linspace(math.log(0.02), math.log(50), 60)))
    assert found.nll_after <= best + 1e-4


@given(st.floats(0, 1), st.floats(0.02, 50))
def test_no_decision_changes(score, temperature):
    after = calibrated(score, temperature)
    assert 0 <= after <= 1
    assert (after > 0.5, after < 0.5) == (score > 0.5, score < 0.5) or abs(score - 0.5) < 1e-9


def test_a_model_that_is_too_sure_is_cooled_down():
    """It says 0.99 and is right in 3 of 4: the likeliest probability is 3/4, so T = logit(0.99) / logit(0.75)."""
    found = fit_temperature([0.99] * 4, [True, True, True, False])
    assert found.temperature == pytest.approx(math.log(99) / math.log(3), rel=1e-3)
    assert calibrated(0.99, found.temperature) == pytest.approx(0.75, abs=1e-3)


def test_nothing_to_learn_from():
    assert fit_temperature([], []).temperature == 1.0
    assert fit_temperature([0.5, 0.5], [True, False]).temperature == 1.0


@pytest.mark.parametrize(("scores", "truth"), [([0.1], []), ([1.5], [True]), ([float("nan")], [True])])
def test_wrong_input_is_an_error(scores, truth):
    with pytest.raises(ValueError, match="expected a probability for each label"):
        fit_temperature(scores, truth)
