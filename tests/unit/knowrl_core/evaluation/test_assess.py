"""A set from beginning to end, with a judge that needs no model."""

from collections import Counter

import pyarrow.parquet as pq
import pytest

from knowrl_core.errors import ArtifactError, InputError
from knowrl_core.evaluation import BenchmarkTask, PredictionSink, assess, flip_metrics, read_baseline, views_around
from knowrl_core.evaluation.assess import CHUNK
from knowrl_core.evaluation.open_set import OpenSet
from knowrl_core.prompts import VIEWS
from knowrl_core.storage.schemas import PredictionRecord
from knowrl_core.storage.tables import read_table

Y, N = "feasible", "infeasible"


def a_set(count):
    tasks = [BenchmarkTask(str(n), f"task {n}", N if n % 3 == 0 else Y, "c", "s") for n in range(count)]
    return OpenSet("set", tasks, count, count, Counter(), tasks)


def judge(wrong=5):
    sizes = []

    def predict(dataset, tasks):
        sizes.append(len(tasks))
        return [
            PredictionRecord(
                dataset, t.id, t.task, t.label, t.label if int(t.id) % wrong else "unparseable", None, 0, 0, 8, "h",
                "p", t.category, t.source, t.pair,
            )
            for t in tasks
        ]  # fmt: skip

    predict.sizes = sizes
    return predict


def run(count, path, **options):
    with PredictionSink(path) as sink:
        return assess(a_set(count), options.pop("judge", judge()), sink=sink, resamples=50, seed=0, **options)


def test_chunks_counts_and_file(tmp_path):
    model = judge()
    found = run(600, tmp_path / "p.parquet", judge=model)
    assert model.sizes == [CHUNK, CHUNK, 600 - 2 * CHUNK]
    assert found.size == found.available == 600
    assert found.labels == {N: 200, Y: 400}
    rows = read_table(tmp_path / "p.parquet", PredictionRecord)
    assert [row.task_id for row in rows] == [str(n) for n in range(600)]
    assert (rows[1].category, rows[1].source, rows[1].predicted) == ("c", "s", Y)
    values = {row.metric: row.value for row in found.metrics}
    assert values["accuracy"] == 480 / 600  # unparseable is counted, and wrong
    assert values["unparseable"] == 120 / 600
    assert {row.predictor for row in found.controls} == {"always_infeasible", "always_feasible", "tfidf"}
    assert found.records == [*found.metrics, *found.controls]


def test_twice_the_same_bytes(tmp_path):
    one, two = (run(300, tmp_path / name).records for name in "ab")
    assert one == two
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_against_a_baseline(tmp_path):
    run(50, tmp_path / "p.parquet")
    baseline = read_baseline(tmp_path / "p.parquet")["set"]
    found = run(50, None, judge=judge(wrong=10), baseline=baseline).comparison
    assert (found.n, found.only_model, found.only_baseline) == (50, 5, 0)
    assert found.mcnemar_p == pytest.approx(2 * 0.5**5)
    with pytest.raises(InputError, match="task '50': missing"):
        run(51, None, baseline=baseline)


def test_an_error_leaves_no_file(tmp_path):
    def broken(dataset, tasks):
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        run(5, tmp_path / "p.parquet", judge=broken)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        PredictionSink(tmp_path / "absent" / "p.parquet")
    with pytest.raises(ArtifactError, match="do not fit"), PredictionSink(tmp_path / "p.parquet") as sink:
        sink.write([PredictionRecord("s", 1, "x", Y, Y, None, 0, 0, 0, "h", "p")])
    with PredictionSink(tmp_path / "empty.parquet"):
        pass
    assert pq.read_metadata(tmp_path / "empty.parquet").num_rows == 0


def test_flip_rates():
    views = views_around("feasible_first")
    assert views.names == (
        "feasible_first", "infeasible_first", "possible_feasible_first", "which_feasible_first",
    )  # fmt: skip
    rows = flip_metrics("frozen", views, [(Y, N, Y, Y), (Y, Y, N, Y), (N, N, Y, Y), ("unparseable", Y, Y, N)])
    assert {row.metric: row.value for row in rows} == {"flip_order": 2 / 4, "flip_wording": (3 / 4 + 2 / 4) / 2}
    assert [row.value for row in flip_metrics("frozen", views, [])] == [None, None]
    for name in VIEWS:
        around = views_around(name)
        assert around.base.question == around.swapped.question
        assert around.base.first != around.swapped.first
        assert len({view.question for view in around.reworded}) == 2
        assert {view.first for view in around.reworded} == {around.base.first}
