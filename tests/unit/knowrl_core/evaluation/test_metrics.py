import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowrl_core.evaluation import consensus_metrics, extrinsic_metrics, intrinsic_metrics
from knowrl_core.storage.schemas import ConsensusRecord, PredictionRecord

Y, N, U = "feasible", "infeasible", "unparseable"


def prediction(label, predicted, score=None, votes=(0, 0, 0)):
    return PredictionRecord(
        dataset="set", task_id="t", task="x", label=label, predicted=predicted, score=score,
        votes_feasible=votes[0], votes_infeasible=votes[1], votes_unparseable=votes[2], prompt_sha256="h", policy="p",
    )  # fmt: skip


def values(rows):
    return {row.metric: row.value for row in rows}


def test_by_hand():
    rows = extrinsic_metrics(
        "set",
        [
            prediction(N, N, 0.9),  # true positive
            prediction(N, N, 0.8),  # true positive
            prediction(N, Y, 0.3),  # false negative
            prediction(N, U, None),  # counts as false negative, score 0
            prediction(Y, Y, 0.1),  # true negative
            prediction(Y, Y, 0.2),  # true negative
            prediction(Y, N, 0.7),  # false positive
            prediction(Y, U, 0.5),  # tie: counts as false positive, score 0.5
        ],
    )
    got = values(rows)
    # TP 2, FN 2, TN 2, FP 2.
    assert got["accuracy"] == got["balanced_accuracy"] == got["f1"] == got["precision"] == got["recall"] == 0.5
    assert got["mcc"] == 0.0
    # Pairs (infeasible above feasible), of 16: 0.9 beats 4, 0.8 beats 4, 0.3 beats 2, 0 beats none.
    assert got["auroc"] == 10 / 16
    assert got["brier"] == pytest.approx((0.01 + 0.04 + 0.49 + 1 + 0.01 + 0.04 + 0.49 + 0.25) / 8)
    assert got["over_refusal"] == 0.25
    assert got["called_feasible"] == 3 / 8
    assert got["unparseable"] == 2 / 8
    assert {row.metric: row.n for row in rows}["over_refusal"] == 4
    assert all(row.n == 8 for row in rows if row.metric != "over_refusal")


def test_unequal_cells_by_hand():
    # TP 3, FN 1, FP 2, TN 4.
    cells = [(N, N)] * 3 + [(N, Y)] + [(Y, N)] * 2 + [(Y, Y)] * 4
    got = values(extrinsic_metrics("set", [prediction(t, p, float(p == N)) for t, p in cells]))
    assert got["accuracy"] == pytest.approx(0.7)
    assert got["precision"] == pytest.approx(3 / 5)
    assert got["recall"] == pytest.approx(3 / 4)
    assert got["f1"] == pytest.approx(2 / 3)
    assert got["balanced_accuracy"] == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert got["mcc"] == pytest.approx((3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5))
    assert got["over_refusal"] == pytest.approx(2 / 6)


def test_always_the_same_answer():
    got = values(extrinsic_metrics("set", [prediction(Y, Y, 0.1), prediction(N, Y, 0.1)]))
    assert (got["accuracy"], got["balanced_accuracy"], got["f1"], got["precision"]) == (0.5, 0.5, 0.0, 0.0)
    assert (got["mcc"], got["auroc"], got["called_feasible"]) == (0.0, 0.5, 1.0)


def test_undefined_metrics_are_none():
    assert set(values(extrinsic_metrics("set", [])).values()) == {None}
    got = values(extrinsic_metrics("set", [prediction(Y, Y, 0.1)]))
    assert [name for name, value in got.items() if value is None] == [
        "balanced_accuracy", "f1", "recall", "mcc", "auroc",
    ]  # fmt: skip
    assert values(extrinsic_metrics("set", [prediction(N, N, 0.9)]))["over_refusal"] is None
    assert set(values(intrinsic_metrics("fresh", [])).values()) == {None}


ROWS = st.lists(
    st.builds(
        prediction, st.sampled_from([Y, N]), st.sampled_from([Y, N, U]), st.none() | st.floats(0, 1, allow_nan=False)
    )
)


@settings(max_examples=40)  # scikit-learn checks its input at length
@given(ROWS)
def test_bounds_and_shape(predictions):
    rows = extrinsic_metrics("set", predictions)
    assert [row.metric for row in rows] == [row.metric for row in extrinsic_metrics("set", [])]
    for row in rows:
        assert row.value is None or (-1 if row.metric == "mcc" else 0) - 1e-9 <= row.value <= 1 + 1e-9
    if predictions:
        right = sum(p.label == p.predicted for p in predictions)
        assert values(rows)["accuracy"] == pytest.approx(right / len(predictions))


def test_intrinsic_by_hand():
    rows = intrinsic_metrics(
        "fresh",
        [
            prediction(Y, Y, votes=(8, 0, 0)),
            prediction(Y, N, votes=(2, 6, 0)),
            prediction(N, N, votes=(0, 4, 4)),
            prediction(N, U, votes=(4, 4, 0)),
            prediction(N, N, votes=(1, 7, 0)),
        ],
    )
    assert values(rows) == pytest.approx(
        {
            "agreement": 3 / 5, "agreement_feasible": 1 / 2, "agreement_infeasible": 2 / 3,
            "mean_share": (1 + 0.75 + 0.5 + 0.5 + 0.875) / 5, "called_feasible": 1 / 5, "unparseable": 1 / 5,
        }
    )  # fmt: skip
    assert [row.n for row in rows] == [5, 2, 3, 5, 5, 5]
    assert {row.dataset for row in rows} == {"fresh"}


def test_consensus_tables_give_the_same_metrics_by_vote():
    def record(intended, *votes):
        return ConsensusRecord(
            task_id="t", task="x", intended=intended, label=N, share=0.9, evidence=1.0, teacher_feasible=0,
            teacher_infeasible=4, votes_feasible=votes[0], votes_infeasible=votes[1], votes_unparseable=votes[2],
            p_infeasible=None, agrees=None, rewards=[], trained=True, train_drop_reason=None, pooled=True,
            pool_drop_reason=None,
        )  # fmt: skip

    # The votes are the policy's own; the label, here a teacher's, does not count.
    rows = consensus_metrics("fresh", [record(Y, 4, 0, 0), record(N, 3, 0, 1), record(N, 2, 2, 0)])
    assert values(rows) == pytest.approx(
        {
            "agreement": 1 / 3, "agreement_feasible": 1.0, "agreement_infeasible": 0.0, "mean_share": 0.75,
            "called_feasible": 2 / 3, "unparseable": 1 / 3,
        }
    )  # fmt: skip
    assert [row.metric for row in rows] == [row.metric for row in intrinsic_metrics("fresh", [])]
    assert set(values(consensus_metrics("fresh", [])).values()) == {None}
