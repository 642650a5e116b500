"""How much longer it takes."""

import pytest

from knowrl_core.report import StageProgress
from knowrl_core.report.estimate import run_left, stage_left, usual_seconds
from knowrl_core.storage.layout import StageKey, stage_keys
from tests.unit.flows.test_view import manifest

KEYS = tuple(stage_keys(3, warmup=False))


def took(seconds, keys=KEYS):
    """A run whose first stages took so long."""
    return {key: manifest(key, number) for key, number in zip(keys, seconds, strict=False)}


def at(done, total=100, *, seconds=10.0, per_second=1.0, stage="002/classify", phase=""):
    return StageProgress(stage=stage, phase=phase, done=done, total=total, seconds=seconds, per_second=per_second)


@pytest.mark.parametrize(
    ("now", "usual", "left"),
    [
        (at(0, per_second=None), None, None),
        (at(0, per_second=None), 30.0, 20.0),
        (at(0, per_second=None, seconds=40.0), 30.0, None),
        (at(40), None, 60.0),
        (at(50), 30.0, 0.5 * 50 + 0.5 * 20),
        (at(100), 30.0, 0.0),
        (at(5, phase="policy"), 30.0, 20.0),
        (at(5, phase="policy"), None, None),
    ],
)
def test_a_stage(now, usual, left):
    assert stage_left(now, usual) == left


def test_what_a_stage_usually_takes():
    history = took([100, 50, 1, 2, 3, 4, 5, 3])
    assert usual_seconds(StageKey(3, "generate"), KEYS, history) == 2, "without iteration 0, which loads the model"
    assert usual_seconds(StageKey(1, "generate"), KEYS, took([100])) == 100
    assert usual_seconds(StageKey(1, "update"), KEYS, took([100, 50, 1, 2, 3])) is None


def test_a_warm_up_says_nothing_of_updates():
    keys = tuple(stage_keys(3, warmup=True))
    history = took([100, 50, 500, 5], keys)
    assert usual_seconds(StageKey(2, "update"), keys, history) is None
    assert usual_seconds(StageKey(2, "evaluate"), keys, history) == 5


def test_a_run():
    assert run_left(None, KEYS, took([100, 50])) is None, "nobody knows how long an update takes"
    history = took([100, 50, 1, 2, 3, 4, 5])
    assert run_left(None, KEYS, history) == 30
    assert run_left(at(1, 2, seconds=1.0, per_second=None, stage="002/generate"), KEYS, history) == 29
    assert run_left(None, KEYS, took(range(17))) == 0
