"""The tasks that a person labelled (``benchmarks/own_tasks.py``)."""

import pandas as pd
import pytest

from benchmarks.own_tasks import OwnTask, agreement, load, main, verdicts


def own(task, intended, truth, **more):
    return OwnTask(set="frozen", run_seed=0, id=task, task=task, intended=intended, truth=truth, **more)


TASKS = [
    own("a", "feasible", "feasible"),
    own("b", "feasible", "infeasible"),
    own("c", "infeasible", "infeasible"),
    own("d", "infeasible", "infeasible"),
    own("e", "infeasible", "unclear"),
]


def test_a_truthful_judge_is_right_where_it_is_clear_and_a_coin_elsewhere():
    found = agreement(TASKS)
    assert found == (5, 4, 3)
    assert found.truthful == pytest.approx((3 + 0.5) / 5)


def test_runs_are_taken_together_as_far_as_all_have_come(tmp_path):
    def evaluated(run, iteration, *rows):
        folder = tmp_path / run / "iterations" / f"{iteration:03d}" / "evaluate"
        folder.mkdir(parents=True)
        columns = ["dataset", "task", "label", "predicted", "score"]
        pd.DataFrame(rows, columns=columns).to_parquet(folder / "predictions.parquet")

    first = ("frozen", "a", "feasible", "infeasible", 0.7), ("probe", "x", "feasible", "feasible", 0.1)
    evaluated("one", 0, *first)
    evaluated("one", 1, *first)
    evaluated(
        "two", 0,
        ("frozen", "b", "feasible", "feasible", 0.2),
        ("frozen", "c", "infeasible", "infeasible", 0.9),
        ("frozen", "e", "infeasible", "infeasible", 0.6),
        ("frozen", "written elsewhere", "feasible", "feasible", 0.1),
    )  # fmt: skip
    (row,) = verdicts([tmp_path / "one", tmp_path / "two"], TASKS)
    # Clear: a is called wrongly, b wrongly, c rightly. Of the pairs of a with b and c, one is ranked rightly.
    number, clear, true, ranked, every, agrees = row.cells(seed=0)
    assert (number, clear, true, every, agrees) == ("0", "3", "0.250", "5", "0.800")
    assert ranked.startswith("0.500 (")


def test_tables_of_the_labelled_tasks(tmp_path, capsys):
    assert main(["--run", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    # 9 of 15 clear ones, and half of the other 25.
    assert "| run seed 0      | 40    | 15    | 9                    | 0.537 " in said
    # (28 / 35 + 21 / 22) / 2
    assert "| balanced accuracy of the label | 57    | 0.877 " in said
    assert "no frozen tasks" in said


def test_the_labelled_tasks():
    tasks = load()
    assert len(tasks) == 240
    assert len({(task.set, task.run_seed, task.id) for task in tasks}) == 240
    assert all((task.label is not None) == (task.set == "trained") for task in tasks)
