"""Metrics of resamples against scikit-learn on the repeated rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from knowrl_core.evaluation.metrics import metric_values
from knowrl_core.evaluation.outcomes import Outcomes
from knowrl_core.evaluation.resampled import BINS, ResampledMetrics
from tests.unit.knowrl_core.evaluation.conftest import ROWS, make_outcomes


def repeated(outcomes, weights):
    """The tasks, each as often as its weight says; copies of a pair are pairs of their own."""
    places = np.repeat(np.arange(outcomes.size), weights)
    copies = np.concatenate([np.arange(count) for count in weights]) if len(weights) else np.array([], dtype=int)
    units = np.unique(np.stack([outcomes.unit[places], copies]), axis=1, return_inverse=True)[1].ravel()
    return Outcomes(
        outcomes.truth[places], outcomes.said_infeasible[places], outcomes.said_feasible[places],
        outcomes.score[places], units,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data(), st.booleans())
def test_weights_equal_repeated_rows(rows, data, paired):
    truth, said, score = zip(*rows, strict=True)
    unit = [place // 2 for place in range(len(rows))] if paired else None
    outcomes = make_outcomes(truth, said, score, unit)
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(set(outcomes.unit)), max_size=len(set(outcomes.unit))))
    weights = np.array(counts)[outcomes.unit]
    found = ResampledMetrics(outcomes)(np.array([weights], dtype=float)) if weights.sum() else {}
    expected = metric_values(repeated(outcomes, weights)) if found else {}
    for name, value in expected.items():
        if value is None:
            assert np.isnan(found[name][0])
        else:
            assert found[name][0] == pytest.approx(value, abs=1e-12)


def test_against_scikit_learn(noisy):
    truth, score, called = noisy.truth, noisy.score, noisy.score > 0.5
    found = metric_values(noisy.outcomes)
    assert found["f1"] == sk.f1_score(truth, called)
    assert found["accuracy"] == sk.accuracy_score(truth, called)
    assert found["balanced_accuracy"] == sk.balanced_accuracy_score(truth, called)
    assert found["precision"] == sk.precision_score(truth, called)
    assert found["recall"] == sk.recall_score(truth, called)
    assert found["mcc"] == sk.matthews_corrcoef(truth, called)
    assert found["auroc"] == sk.roc_auc_score(truth, score)
    assert found["brier"] == pytest.approx(sk.brier_score_loss(truth, score))
    assert found["over_refusal"] == pytest.approx(1 - sk.recall_score(truth, called, pos_label=False))


def test_calibration_error_against_scikit_learns_curve(noisy):
    rates, means = calibration_curve(noisy.truth, noisy.score, n_bins=BINS)
    counts = np.histogram(noisy.score, bins=BINS, range=(0, 1))[0]
    expected = np.sum(counts[counts > 0] * np.abs(rates - means)) / counts.sum()
    assert metric_values(noisy.outcomes)["ece"] == pytest.approx(expected)


@pytest.mark.parametrize(("score", "error"), [([1, 0, 1, 0], 0.0), ([0, 1, 0, 1], 1.0), ([0.5] * 4, 0.0)])
def test_calibration_error_by_hand(score, error):
    assert metric_values(make_outcomes([1, 0, 1, 0], [1, 0, 1, 0], score))["ece"] == pytest.approx(error)


def test_pair_accuracy_by_hand():
    # Pairs: both right, one right, none decided; and a task without a twin, which does not count.
    outcomes = make_outcomes([1, 0, 1, 0, 1, 0, 1], [1, 0, 1, 1, None, None, 0], unit=[0, 0, 1, 1, 2, 2, 3])
    assert metric_values(outcomes)["pair_accuracy"] == pytest.approx(1 / 3)
    assert "pair_accuracy" not in metric_values(make_outcomes([1, 0], [1, 0]))
    assert metric_values(make_outcomes([1, 0], [1, 1], unit=[0, 0]))["pair_accuracy"] == 0
