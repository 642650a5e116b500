"""The comparison of two models, against SciPy and by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from knowrl_core.errors import InputError
from knowrl_core.evaluation.compare import BaselineRow, baseline_prediction, compare, mcnemar, read_baseline
from knowrl_core.evaluation.sink import PredictionSink
from knowrl_core.storage.schemas import PredictionRecord
from tests.unit.knowrl_core.evaluation.conftest import make_outcomes


def prediction(task_id, predicted="feasible", label="feasible", dataset="s"):
    return PredictionRecord(dataset, task_id, "x", label, predicted, 0.5, 1, 1, 0, "h", "p")


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_against_the_binomial_tail(first, second):
    n = first + second
    tail = 2 * stats.binom.cdf(min(first, second), n, 0.5) if n else 1.0
    assert mcnemar(first, second) == pytest.approx(min(1.0, tail))
    assert mcnemar(first, second) == pytest.approx(mcnemar(second, first))


def test_by_hand():
    truth = [1, 1, 1, 1, 0, 0, 0, 0]
    model = make_outcomes(truth, [1, 1, 1, 0, 0, 0, 1, 0])
    before = make_outcomes(truth, [1, 0, 0, 1, 0, 0, None, 1])
    found = compare(model, before, resamples=500, seed=0, name="s")
    # Only the model is right on tasks 2, 3 and 8, only the baseline on task 4; the undecided one is wrong for both.
    assert (found.n, found.only_model, found.only_baseline) == (8, 3, 1)
    assert found.mcnemar_p == pytest.approx(0.625)
    assert found.f1_baseline == pytest.approx(f1_score(truth, [1, 0, 0, 1, 0, 0, 1, 1]))
    assert found.f1_difference == pytest.approx(f1_score(truth, [1, 1, 1, 0, 0, 0, 1, 0]) - found.f1_baseline)
    assert found.lower < found.f1_difference < found.upper
    more = {row.metric: row for row in found.more}
    # Right: 3 of 4 and 3 of 4; before, 2 of 4 and 2 of 4.
    assert (more["balanced_accuracy"].baseline, more["balanced_accuracy"].difference) == (0.5, 0.25)
    assert more["balanced_accuracy"].lower < 0.25 < more["balanced_accuracy"].upper


def test_the_ranking_is_compared_where_both_labels_are_there():
    truth, said = [1, 1, 0, 0], [1, 1, 0, 0]
    found = compare(
        make_outcomes(truth, said, [0.9, 0.8, 0.2, 0.1]), make_outcomes(truth, said, [0.9, 0.3, 0.4, 0.1]),
        resamples=0, seed=0, name="s",
    )  # fmt: skip
    area = found.more[-1]
    # Of the four pairs of an infeasible and a feasible task, the baseline ranks three rightly.
    assert (area.metric, area.baseline, area.difference, area.lower) == ("auroc", 0.75, 0.25, None)
    alone = compare(make_outcomes([1, 1], [1, 0]), make_outcomes([1, 1], [1, 1]), resamples=0, seed=0, name="s")
    assert "auroc" not in {row.metric for row in alone.more}


def test_a_model_does_not_differ_from_itself(noisy):
    found = compare(noisy.outcomes, noisy.outcomes, resamples=100, seed=0, name="s")
    assert (found.f1_difference, found.lower, found.upper, found.mcnemar_p) == (0, 0, 0, 1)


def test_the_paired_interval_against_scipy(noisy):
    rng = np.random.default_rng(3)
    truth, ours = noisy.truth, noisy.score > 0.5
    theirs = np.where(rng.random(200) < 0.2, ~ours, ours)
    found = compare(
        noisy.outcomes, make_outcomes(truth, theirs.astype(int)), resamples=3_000, seed=0, name="s"
    )  # fmt: skip

    def difference(positive, negative):
        places = np.concatenate([positive, negative]).astype(int)
        return f1_score(truth[places], ours[places]) - f1_score(truth[places], theirs[places])

    reference = stats.bootstrap(
        (np.flatnonzero(truth), np.flatnonzero(~truth)), difference, n_resamples=1_000, method="percentile",
        vectorized=False, rng=np.random.default_rng(4),
    ).confidence_interval  # fmt: skip
    assert found.lower == pytest.approx(reference.low, abs=0.012)
    assert found.upper == pytest.approx(reference.high, abs=0.012)


def test_a_baseline_is_read_from_a_prediction_file(tmp_path):
    with PredictionSink(tmp_path / "p.parquet") as sink:
        sink.write([prediction("a"), prediction("a", dataset="t")])
        sink.write([prediction("b", "infeasible")])
    found = read_baseline(tmp_path / "p.parquet")
    assert found["s"] == {
        "a": BaselineRow("feasible", "feasible", 0.5), "b": BaselineRow("feasible", "infeasible", 0.5),
    }  # fmt: skip
    assert list(found) == ["s", "t"]
    assert baseline_prediction(found["s"], prediction("b")).predicted == "infeasible"
    with pytest.raises(InputError, match="baseline: s: task 'c': missing"):
        baseline_prediction(found["s"], prediction("c"))
    with pytest.raises(InputError, match="task 'a': got label 'feasible', expected 'infeasible'"):
        baseline_prediction(found["s"], prediction("a", label="infeasible"))


def test_files_that_are_no_predictions(tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "y.parquet")
    for file in ("x.parquet", "y.parquet", "absent.parquet"):
        with pytest.raises(InputError, match="no prediction file"):
            read_baseline(tmp_path / file)
    with PredictionSink(tmp_path / "z.parquet") as sink:
        sink.write([prediction("a"), prediction("a")])
    with pytest.raises(InputError, match="task 'a' stands twice"):
        read_baseline(tmp_path / "z.parquet")
