"""Intervals against SciPy's bootstrap, and the design of the resampling."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from knowrl_core.evaluation.bootstrap import _CELLS, confidence_intervals, resample
from knowrl_core.evaluation.metrics import metric_records
from tests.unit.knowrl_core.evaluation.conftest import make_outcomes


def intervals(outcomes, names, resamples=4_000, seed=0, name="set"):
    return confidence_intervals(outcomes, names, resamples=resamples, seed=seed, name=name)


@pytest.mark.parametrize("metric", ["f1", "accuracy", "auroc"])
def test_against_scipy(noisy, metric):
    """SciPy resamples several samples each by itself, which is stratification."""
    truth, score = noisy.truth, noisy.score

    def statistic(positive, negative, axis):
        tp, fp = (positive > 0.5).sum(axis=axis), (negative > 0.5).sum(axis=axis)
        p, n = positive.shape[axis], negative.shape[axis]
        if metric == "f1":
            return 2 * tp / (tp + fp + p)
        if metric == "accuracy":
            return (tp + n - fp) / (p + n)
        ranks = stats.rankdata(np.concatenate([positive, negative], axis=axis), axis=axis)
        return (ranks[..., :p].sum(axis=axis) - p * (p + 1) / 2) / (p * n)

    reference = stats.bootstrap(
        (score[truth], score[~truth]), statistic, n_resamples=4_000, method="percentile", vectorized=True,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    lower, upper = intervals(noisy.outcomes, [metric])[metric]
    assert lower == pytest.approx(reference.low, abs=0.008)
    assert upper == pytest.approx(reference.high, abs=0.008)


def test_an_interval_holds_the_value_and_shrinks_with_more_tasks(noisy):
    small = noisy.outcomes
    rng = np.random.default_rng(2)
    truth = rng.random(5_000) < 0.4
    score = np.clip(0.3 * truth + 0.7 * rng.random(5_000), 0, 1)
    large = make_outcomes(truth, (score > 0.5).astype(int), score)
    widths = []
    for outcomes in (small, large):
        lower, upper = intervals(outcomes, ["f1"])["f1"]
        assert lower < f1_score(outcomes.truth, outcomes.called) < upper
        widths.append(upper - lower)
    assert widths[1] == pytest.approx(widths[0] / 5, rel=0.35)


def test_the_same_seed_gives_the_same_numbers(noisy):
    assert intervals(noisy.outcomes, ["f1"]) == intervals(noisy.outcomes, ["f1"])
    assert intervals(noisy.outcomes, ["f1"]) != intervals(noisy.outcomes, ["f1"], seed=1)
    assert intervals(noisy.outcomes, ["f1"]) != intervals(noisy.outcomes, ["f1"], name="other")
    assert intervals(noisy.outcomes, ["f1"], resamples=0) == {}


def test_every_resample_holds_as_many_tasks_of_each_label(noisy):
    blocks = list(resample(noisy.outcomes, 50, seed=0, name="s"))
    weights = np.concatenate(blocks)
    assert weights.shape == (50, 200)
    assert set(weights[:, noisy.truth].sum(axis=1)) == {noisy.truth.sum()}
    assert set(weights[:, ~noisy.truth].sum(axis=1)) == {(~noisy.truth).sum()}
    assert (weights.std(axis=0) > 0).all()


def test_pairs_stay_together():
    outcomes = make_outcomes([1, 0] * 10 + [1, 0], [1, 0] * 11, unit=[n // 2 for n in range(20)] + [10, 11])
    (weights,) = resample(outcomes, 30, seed=0, name="s")
    assert (weights[:, 0:20:2] == weights[:, 1:20:2]).all()
    assert set(weights[:, :20].sum(axis=1)) == {20}


def test_blocks_bound_the_memory():
    n = 30_000
    outcomes = make_outcomes([0, 1] * (n // 2), [0, 1] * (n // 2))
    blocks = [len(weights) for weights in resample(outcomes, 100, seed=0, name="s")]
    assert sum(blocks) == 100
    assert max(blocks) * n <= _CELLS


def test_records_carry_intervals_only_where_they_are_defined():
    rows = {row.metric: row for row in metric_records("s", make_outcomes([1, 1, 1], [1, 0, None]), resamples=100)}
    assert rows["accuracy"].lower <= rows["accuracy"].value <= rows["accuracy"].upper
    assert (rows["mcc"].value, rows["mcc"].lower, rows["mcc"].upper) == (None, None, None)
    assert rows["accuracy"].predictor == "model"
    assert all(row.lower is None for row in metric_records("s", make_outcomes([1, 0], [1, 0])))
    assert all(row.value is None for row in metric_records("s", make_outcomes([], []), resamples=10))
