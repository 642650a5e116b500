"""Numbers as text."""

import pytest

from knowrl_core.report import IterationRow
from knowrl_core.report.scale import duration
from tasks.summary import COLUMNS, cells


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (7.12, "7.1 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7400, "2 h 03 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_undefined_values_are_shown_as_such():
    row = IterationRow(3, None, 0.5, 1.0, 0.25, None, 0.0, 0.125, 12.0)
    assert cells(row) == ["3", "-", "0.500", "1.000", "0.250", "-", "0.000", "0.125", "12.0 s"]
    assert len(COLUMNS) == len(cells(row))


def test_a_warm_up_is_marked():
    row = IterationRow(1, None, None, 1.0, 0.25, None, 0.0, 0.125, 12.0, warmup=True)
    assert cells(row)[0] == "1 (warm-up)"
