"""MLflow after real runs: what stands in it, that nothing is counted twice, and that an outage loses nothing."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from mlflow import MlflowClient

from knowrl_core.config import build_config, deep_merge
from knowrl_core.storage.layout import STAGES, RunPaths, StageKey, stage_keys
from knowrl_core.storage.run_file import ConfigChange, RunFile
from knowrl_core.storage.verify import committed_manifests
from tasks.reporter import Reporter
from tasks.tracking import Tracker
from tests.e2e.helpers import TINY, environment_of, in_stage, kill_group, knowrl, start, wait_for
from tests.e2e.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ITERATIONS = 3
SMALL = [option for option in TINY if "tracking" not in option]
NOWHERE = "http://127.0.0.1:1"


def command(root, iterations=ITERATIONS):
    return ["run", "--config", "smoke", f"--set=run.root={root}", f"--set=run.iterations={iterations}", *SMALL]


def store(root):
    return f"sqlite:///{root / 'mlflow.db'}"


class Seen:
    """What stands in an MLflow store of one run."""

    def __init__(self, uri):
        self.client = MlflowClient(uri)
        experiment = self.client.get_experiment_by_name("knowrl").experiment_id
        runs = self.client.search_runs([experiment], order_by=["attributes.start_time ASC"])
        self.parents = [run for run in runs if run.data.tags["knowrl.kind"] == "run"]
        self.children = [run for run in runs if run.data.tags["knowrl.kind"] == "iteration"]

    def points(self, run):
        """Step and value of every point of every metric; times differ from run to run and are left out."""
        return {
            name: [(point.step, point.value) for point in self.client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
            if not name.endswith("seconds")
        }

    def lengths(self, run):
        return {name: len(self.client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics}


class Heard(Reporter):
    """Keeps what is reported."""

    def __init__(self):
        self.warnings, self.messages = [], []

    def warning(self, text):
        self.warnings.append(text)

    def message(self, text):
        self.messages.append(text)


class Finished:
    """A finished run, to be logged again by trackers of the test's own."""

    def __init__(self, root):
        self.root, self.paths = root, RunPaths(root, "smoke")
        self.run_file = RunFile.read(self.paths)
        self.history = committed_manifests(self.paths, stage_keys(ITERATIONS, warmup=False))

    def tracker(self, uri="auto", reporter=None, run_file=None):
        config = build_config(deep_merge(self.run_file.config, {"tracking": {"uri": uri}}))
        return Tracker(config, self.paths, run_file or self.run_file, reporter or Heard())

    def log(self, uri, history=None, **more):
        tracker = self.tracker(uri, **more)
        tracker.open(history or self.history)
        tracker.close("completed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, home, prefect_server):
    root = tmp_path_factory.mktemp("tracked")
    done = knowrl(*command(root), home=home, check=0, PREFECT_API_URL=prefect_server)
    assert "alembic" not in done.stderr
    assert "INFO" not in done.stderr
    assert "\x1b" not in done.stderr + done.stdout, "no view without a terminal"
    assert done.stderr.count("(truth: balanced_accuracy ") == ITERATIONS, "a reward without the truth beside it"
    return Finished(root)


def test_one_parent_and_a_child_an_iteration(finished):
    seen = Seen(store(finished.root))
    [parent] = seen.parents
    assert parent.info.run_name == "smoke"
    assert parent.info.status == "FINISHED"
    assert "knowrl resume smoke --set run.root=" in parent.data.tags["mlflow.note.content"]
    assert [child.info.run_name for child in seen.children] == [f"smoke/it{n:03d}" for n in range(ITERATIONS + 1)]
    every = {f"{name}/seconds" for name in STAGES}
    for number, child in enumerate(seen.children):
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["knowrl.iteration"] == child.data.params["iteration"] == str(number)
        assert child.data.params["rl.kl_coef"] == str(finished.run_file.config["rl"]["kl_coef"])
        assert child.info.status == "FINISHED"
        assert child.info.start_time <= child.info.end_time
        assert set(child.data.metrics) >= (every if number else {"generate/seconds", "evaluate/seconds"})
        assert all(math.isfinite(value) for value in child.data.metrics.values())
        assert set(seen.lengths(child).values()) == {1}
        manifest = finished.history[StageKey(number, "evaluate")]
        assert child.data.metrics["evaluate/probe/f1"] == manifest.metrics["probe/f1"]
        assert child.data.metrics["at_a_glance/f1"] == manifest.metrics["probe/f1"]
    for name, points in seen.points(parent).items():
        steps = [step for step, _ in points]
        assert len(steps) == len(set(steps)), name
        assert set(steps) <= set(range(ITERATIONS + 1))
    assert [step for step, _ in seen.points(parent)["at_a_glance/f1"]] == [0, 1, 2, 3]
    assert [step for step, _ in seen.points(parent)["at_a_glance/reward"]] == [1, 2, 3]


def test_artifacts_of_an_iteration(finished, tmp_path):
    seen = Seen(store(finished.root))
    child = seen.children[2].info.run_id
    assert {item.path for item in seen.client.list_artifacts(child)} == set(STAGES)
    file = seen.client.download_artifacts(child, "evaluate/predictions.parquet", str(tmp_path))
    assert pyarrow.parquet.read_table(file).num_rows > 0
    names = {item.path for item in seen.client.list_artifacts(child, "update")}
    assert names == {"update/manifest.json", "update/rollouts.parquet", "update/training.parquet"}
    assert [item.path for item in seen.client.list_artifacts(seen.parents[0].info.run_id)] == ["run.json"]


def test_after_kill_and_resume_all_is_there_once(finished, tmp_path, home, prefect_server):
    process = start(*command(tmp_path), home=home, log=tmp_path / "log", PREFECT_API_URL=prefect_server)
    wait_for(in_stage(RunPaths(tmp_path, "smoke"), StageKey(2, "update")), process=process, what="002/update")
    kill_group(process)
    knowrl(*command(tmp_path), home=home, check=0, PREFECT_API_URL=prefect_server)
    expected, seen = Seen(store(finished.root)), Seen(store(tmp_path))
    assert len(seen.parents) == 1
    assert len(seen.children) == ITERATIONS + 1
    for before, after in zip([*expected.parents, *expected.children], [*seen.parents, *seen.children], strict=True):
        assert expected.points(before) == seen.points(after)
        assert expected.lengths(before) == seen.lengths(after)


def test_a_crash_before_the_tag_leaves_no_second_point(finished, tmp_path):
    uri = store(tmp_path)
    finished.log(uri)
    before = Seen(uri)
    lengths = before.lengths(before.parents[0])
    for child in before.children[1:]:
        before.client.delete_tag(child.info.run_id, "stage.evaluate")
        before.client.delete_tag(child.info.run_id, "stage.update")
    finished.log(uri)
    after = Seen(uri)
    assert after.lengths(after.parents[0]) == lengths
    assert all(set(after.lengths(child).values()) == {1} for child in after.children)
    assert all("stage.evaluate" in child.data.tags for child in after.children)


def test_a_stage_that_was_done_again_replaces_what_was_logged(finished, tmp_path):
    uri, key = store(tmp_path), StageKey(2, "evaluate")
    finished.log(uri)
    again = finished.history[key].model_copy(
        update={"finished": "2100-01-01T00:00:00+00:00", "metrics": {"probe/f1": 0.125}}
    )
    finished.log(uri, {**finished.history, key: again})
    seen = Seen(uri)
    [parent] = seen.parents
    assert len(seen.children) == ITERATIONS + 1
    history = dict(seen.points(parent)["evaluate/probe/f1"])
    assert history[2] == 0.125
    assert len(history) == len(seen.points(parent)["evaluate/probe/f1"]) == ITERATIONS + 1


def test_an_iteration_has_the_parameters_that_it_ran_with(finished, tmp_path):
    run_file = finished.run_file.model_copy(deep=True)
    now = finished.run_file.config["rl"]["kl_coef"]
    run_file.changes.append(
        ConfigChange(at=run_file.created, first_stage="002/update", field="rl.kl_coef", old=0.5, new=now)
    )
    finished.log(store(tmp_path), run_file=run_file)
    params = [child.data.params["rl.kl_coef"] for child in Seen(store(tmp_path)).children]
    assert params == ["0.5", "0.5", str(now), str(now)]


def test_an_interrupted_run_shows_as_killed_until_it_goes_on(finished, tmp_path):
    uri = store(tmp_path)
    part = dict(list(finished.history.items())[:4])  # up to 001/classify
    tracker = finished.tracker(uri)
    tracker.open(part)
    tracker.close("interrupted")
    seen = Seen(uri)
    assert [run.info.status for run in (*seen.parents, *seen.children)] == ["KILLED", "FINISHED", "KILLED"]
    finished.log(uri)
    seen = Seen(uri)
    assert {run.info.status for run in (*seen.parents, *seen.children)} == {"FINISHED"}


def test_without_mlflow_the_run_ends_and_is_logged_later(tmp_path, home, prefect_server):
    began = time.monotonic()
    done = knowrl(
        *command(tmp_path, 1), f"--set=tracking.uri={NOWHERE}", home=home, check=0, PREFECT_API_URL=prefect_server
    )
    assert time.monotonic() - began < 120
    assert done.stderr.count("MLflow") - done.stderr.count("when MLflow is back") == 1, done.stderr
    assert not (tmp_path / "mlflow.db").exists()
    knowrl(*command(tmp_path, 1), home=home, check=0, PREFECT_API_URL=prefect_server)
    seen = Seen(store(tmp_path))
    assert [child.info.run_name for child in seen.children] == ["smoke/it000", "smoke/it001"]
    assert seen.parents[0].info.status == "FINISHED"


def test_a_server_that_goes_away_and_comes_back_misses_nothing(finished, tmp_path, monkeypatch, capfd):
    server, heard = Server("mlflow", tmp_path), Heard()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setattr("tasks.tracking.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("tasks.tracking.RETRY_SHARE", 1e9)
    stages = list(finished.history.items())
    tracker = finished.tracker(reporter=heard)
    server.start()
    try:
        tracker.open(dict(stages[:4]))
        assert heard.warnings == []
        server.kill()
        tracker.log_stage(*stages[4])
        tracker.log_stage(*stages[5])
        assert len(heard.warnings) == 1
        server.start()
        for stage in stages[6:]:
            tracker.log_stage(*stage)
        tracker.close("completed")
        assert len(heard.warnings) == 1
        assert [text for text in heard.messages if "again" in text]
        seen, local = Seen(tracker.uri), Seen(store(finished.root))
        assert seen.points(seen.parents[0]) == local.points(local.parents[0])
        assert len(seen.children) == ITERATIONS + 1
        files = {path.name for path in (tmp_path / "artifacts").rglob("*.parquet")}
        assert {"candidates.parquet", "rollouts.parquet", "predictions.parquet"} <= files
        assert os.environ["MLFLOW_TRACKING_URI"] == server.url
        assert capfd.readouterr().out == ""
    finally:
        server.kill()


PROCESS = """
import sys, time
from pathlib import Path
from tests.e2e.test_tracking import Finished, Heard
import tasks.mlflow_log
root, uri, number, at = sys.argv[1:]
finished, heard = Finished(Path(root)), Heard()
finished.run_file.run_id = finished.run_file.name = f"p{number}"
while time.time() < float(at):
    pass
finished.log(uri, reporter=heard)
sys.exit("\\n".join(heard.warnings) or 0)
"""


def test_processes_that_start_at_once_on_one_new_file_are_all_logged(finished, tmp_path):
    at = str(time.time() + 8)  # all have loaded their libraries by then
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(finished.root), store(tmp_path), str(number), at],
            cwd=Path(__file__).parents[2],
            env=environment_of(tmp_path),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    seen = Seen(store(tmp_path))
    assert sorted(run.info.run_name for run in seen.parents) == ["p0", "p1", "p2"]
    assert len(seen.children) == 3 * (ITERATIONS + 1)
