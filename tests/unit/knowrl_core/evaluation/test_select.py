from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.evaluation import EvalTask, take_evenly


def tasks(labels):
    return [EvalTask(str(i), f"task {i}", {"f": "feasible", "i": "infeasible"}[x]) for i, x in enumerate(labels)]


def test_by_hand():
    assert [t.id for t in take_evenly(tasks("fffii"), 4)] == ["0", "1", "3", "4"]
    assert [t.id for t in take_evenly(tasks("fffi"), 3)] == ["0", "1", "3"]
    assert [t.id for t in take_evenly(tasks("fff"), 2)] == ["0", "1"]
    assert take_evenly(tasks("fii"), 0) == tasks("fii")
    assert take_evenly([], 5) == []


@given(st.text("fi", max_size=20), st.integers(1, 25))
def test_size_balance_and_growth(labels, limit):
    taken = take_evenly(tasks(labels), limit)
    assert len(taken) == min(limit, len(labels))
    counts = [sum(t.label == label for t in taken) for label in ("feasible", "infeasible")]
    assert abs(counts[0] - counts[1]) <= 1 or min(labels.count("f"), labels.count("i")) in counts
    assert set(taken) <= set(take_evenly(tasks(labels), limit + 1))
