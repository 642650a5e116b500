from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.consensus.pool import grow_pool
from knowrl_core.storage.schemas import PoolRecord


def row(task_id, label="feasible", task=None, share=1.0):
    return PoolRecord(id=task_id, task=task or f"task {task_id}", label=label, iteration=1, share=share)


def ids(rows):
    return [r.id for r in rows]


def test_the_oldest_of_the_label_leave_first():
    old = [row("a"), row("x", "infeasible"), row("b")]
    pool, refused = grow_pool(old, [row("c"), row("y", "infeasible")], 4)
    assert ids(pool) == ["x", "b", "c", "y"]
    assert refused == {}


def test_more_applicants_than_places():
    pool, refused = grow_pool([row("a")], [row("b", share=0.75), row("c"), row("d", share=0.75)], 4)
    assert ids(pool) == ["b", "c"]
    assert refused == {"d": "pool_full"}


def test_the_same_text_enters_once():
    pool, refused = grow_pool(
        [row("a", task="Name a river.")],
        [row("b", task="name a  RIVER"), row("c", task="X y"), row("d", task="x Y.")],
        10,
    )
    assert ids(pool) == ["a", "c"]
    assert refused == {"b": "already_in_pool", "d": "already_in_pool"}


def test_no_places_and_a_smaller_bound():
    assert grow_pool([row("a")], [row("b")], 0) == ([], {"b": "pool_full"})
    assert ids(grow_pool([row("a"), row("b"), row("c")], [], 4)[0]) == ["b", "c"]


LABELS = st.lists(st.sampled_from(["feasible", "infeasible"]), max_size=12)


@given(LABELS, LABELS, st.integers(0, 12))
def test_bounds_and_bookkeeping(old_labels, new_labels, size):
    old = [row(f"o{i}", label) for i, label in enumerate(old_labels)]
    new = [row(f"n{i}", label) for i, label in enumerate(new_labels)]
    pool, refused = grow_pool(old, new, size)
    for label in ("feasible", "infeasible"):
        assert sum(r.label == label for r in pool) == min(size // 2, (old_labels + new_labels).count(label))
    assert len(set(ids(pool))) == len(pool)
    assert {r.id for r in new} == {r.id for r in pool if r in new} | set(refused)
    assert ids(pool) == [i for i in ids(old + new) if i in ids(pool)]
