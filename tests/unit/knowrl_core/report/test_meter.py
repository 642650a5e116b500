"""Speed and share of the stage under way."""

import pytest

from knowrl_core.report import Meter, StageProgress
from knowrl_core.storage.layout import StageKey

KEY = StageKey(2, "classify")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def work(meter, clock, seconds, *, a_second, start=0, total=1000, phase="", tokens=0):
    for second in range(1, seconds + 1):
        clock.now += 1
        meter.add_tokens(tokens)
        meter.advance(start + second * a_second, total, phase)


def test_nothing_is_under_way_between_stages(clock):
    meter = Meter(clock)
    assert meter.read() is None
    meter.begin(KEY)
    assert meter.read() == StageProgress(stage="002/classify")
    meter.end()
    assert meter.read() is None


def test_speeds_are_those_of_late(clock):
    meter = Meter(clock)
    meter.begin(KEY)
    work(meter, clock, 100, a_second=1, tokens=10)
    slow = meter.read()
    assert (slow.done, slow.seconds, slow.per_second, slow.tokens_per_second) == (100, 100.0, 1.0, 10.0)
    work(meter, clock, 60, a_second=5, start=100, tokens=50)
    fast = meter.read()
    assert fast.per_second == pytest.approx(5.0, abs=0.2)
    assert fast.tokens_per_second == pytest.approx(50.0, abs=2)


def test_speed_falls_while_nothing_comes(clock):
    meter = Meter(clock)
    meter.begin(KEY)
    work(meter, clock, 10, a_second=1)
    clock.now += 90
    assert meter.read().per_second == pytest.approx(0.1)


def test_a_phase_is_measured_by_itself(clock):
    meter = Meter(clock)
    meter.begin(StageKey(2, "update"))
    work(meter, clock, 10, a_second=100, phase="policy")
    assert meter.read().fraction == 0.0
    work(meter, clock, 10, a_second=2, total=40, phase="train")
    now = meter.read()
    assert (now.per_second, now.fraction, now.seconds) == (pytest.approx(2.0, abs=0.3), 0.5, 20.0)
    meter.advance(0, 1, "save")
    assert meter.read().fraction == 1.0
