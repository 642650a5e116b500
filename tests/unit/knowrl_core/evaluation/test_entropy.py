import math

import pytest

from knowrl_core.evaluation.entropy import entropy_record
from knowrl_core.storage.schemas import PredictionRecord


def prediction(score):
    return PredictionRecord("probe", "t", "Add.", "feasible", "feasible", score, 1, 0, 0, "", "")


def test_mean_binary_entropy():
    record = entropy_record("probe", [prediction(score) for score in (0.5, 0.0, 1.0, 0.25, None)])
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert record.value == pytest.approx((math.log(2) + quarter) / 4)
    assert (record.dataset, record.metric, record.n, record.predictor) == ("probe", "verdict_entropy", 4, "model")


def test_certain_verdicts_have_none():
    value = entropy_record("probe", [prediction(1.0), prediction(0.0)]).value
    assert value == 0
    assert math.copysign(1, value) == 1


def test_undefined_without_a_parseable_verdict():
    assert entropy_record("probe", [prediction(None)]).value is None
