"""The linear readout of ``benchmarks/limits.py``: what it finds where something is there, and where nothing is."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.limits import Features, across, joined, readout, within
from benchmarks.ranking import area, shown

LAYERS, WIDTH = 4, 6
TELLING = 3
"""The layer that holds the label; the readout looks at every third, from 0."""


def tasks(size, *, seed, strength, pairs=False):
    rng = np.random.default_rng(seed)
    infeasible = np.arange(size) % 2
    states = rng.normal(size=(size, LAYERS, WIDTH)).astype(np.float32)
    states[:, TELLING, 0] += strength * (2 * infeasible - 1)
    names = np.arange(size) // 2 if pairs else np.arange(size)
    if pairs:  # twins share everything but the label's direction
        states[1::2, :, 1:] = states[::2, :, 1:]
    return Features(states, infeasible, names.astype(str))


def test_a_label_that_is_there_is_found_in_its_layer():
    train, test = tasks(80, seed=0, strength=2.0), tasks(60, seed=1, strength=2.0)
    layer, _ = readout(train)
    assert layer == TELLING
    assert roc_auc_score(test.infeasible, across(train, test)) > 0.95
    assert roc_auc_score(train.infeasible, within(train)) > 0.95


@pytest.mark.parametrize("pairs", [False, True])
def test_where_there_is_nothing_cross_validation_says_so(pairs):
    # The layer and the strength are chosen within the training folds, so that choosing the best of many raises nothing.
    areas = []
    for seed in range(6):
        nothing = tasks(80, seed=seed, strength=0.0, pairs=pairs)
        areas.append(roc_auc_score(nothing.infeasible, within(nothing)))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.1)


def test_joined_sets_keep_their_rows():
    one, other = tasks(10, seed=0, strength=0.0), tasks(6, seed=1, strength=0.0)
    both = joined(one, other)
    assert both.states.shape == (16, LAYERS, WIDTH)
    assert np.array_equal(both.rows(np.arange(10, 16)).states, other.states)


def test_an_area_and_its_interval():
    truth = np.array([0, 0, 1, 1] * 10)
    assert area(truth, truth.astype(float), 0) == {"auroc": 1.0, "interval": [1.0, 1.0]}
    found = area(truth, np.array([0.1, 0.4, 0.35, 0.8] * 10), 0)  # 3 of the 4 kinds of pairs in order
    assert found["auroc"] == 0.75
    lower, upper = found["interval"]
    assert 0.5 < lower < 0.75 < upper < 1.0
    assert shown(found) == f"0.750 ({lower:.3f} to {upper:.3f})"
