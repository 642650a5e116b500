"""Parts of a set."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.errors import InputError
from knowrl_core.evaluation.benchmarks import BenchmarkTask, find_benchmark
from knowrl_core.evaluation.open_set import open_set
from knowrl_core.evaluation.sample import sample_tasks

LABELS = {"f": "feasible", "i": "infeasible"}


def tasks(text, *, paired=False):
    return [BenchmarkTask(f"t{n}", f"task {n}", LABELS[x], pair=f"p{n // 2}" * paired) for n, x in enumerate(text)]


@given(st.text("fi", max_size=40), st.integers(1, 45), st.integers(0, 3))
def test_size_mix_and_order(text, limit, seed):
    whole = tasks(text)
    taken, total = sample_tasks(whole, limit, seed=seed, name="s")
    assert len(taken) == min(limit, len(text))
    assert taken == [task for task in whole if task in taken]
    assert total == Counter(task.label for task in whole)
    for label, key in zip(LABELS.values(), LABELS, strict=True):
        share = text.count(key) * min(limit, len(text)) / max(len(text), 1)
        assert abs(sum(task.label == label for task in taken) - share) < 1
        if key in text and limit > 1:
            assert any(task.label == label for task in taken)


@given(st.text("fi", min_size=5, max_size=40), st.integers(1, 10), st.randoms())
def test_the_draw_does_not_depend_on_the_order(text, limit, random):
    whole = tasks(text)
    mixed = list(whole)
    random.shuffle(mixed)
    one, two = (sample_tasks(part, limit, seed=0, name="s").tasks for part in (whole, mixed))
    assert set(one) == set(two)


def test_twins_come_together():
    taken = sample_tasks(tasks("if" * 50, paired=True), 20, seed=0, name="s").tasks
    assert set(Counter(task.pair for task in taken).values()) == {2}


def test_another_seed_or_set_draws_others():
    whole = tasks("if" * 100)
    draws = [sample_tasks(whole, 20, seed=seed, name=name).tasks for seed, name in ((0, "a"), (1, "a"), (0, "b"))]
    assert draws[0] != draws[1]
    assert draws[0] != draws[2]


def test_the_probe_gives_its_first_tasks_as_a_run_takes_them():
    probe = find_benchmark("probe")
    whole, part = open_set(probe, None), open_set(probe, None, limit=10)
    assert (part.size, part.available, whole.size) == (10, whole.size, whole.available)
    assert set(part.tasks) <= set(list(whole.tasks)[:40])
    assert len(part.wording) == whole.size


def test_a_set_is_checked_to_its_end_before_anything_is_judged(tmp_path):
    file = tmp_path / "x.jsonl"
    good = '{"id": "%d", "task": "Sing.", "generated_as": "feasible", "classified_as": "feasible"}\n'
    file.write_text("".join(good % n for n in range(2_000)) + "{}\n")
    for limit in (0, 5):
        with pytest.raises(InputError, match=r"x.jsonl:2001: field 'id': missing"):
            open_set(find_benchmark("lineofduty"), file, limit=limit)
    file.write_text(good.replace('"classified_as": "feasible"', '"classified_as": "infeasible"') % 1)
    with pytest.raises(InputError, match="got no task, expected at least one; left out"):
        open_set(find_benchmark("lineofduty_agreed"), file)
