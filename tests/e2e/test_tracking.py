"""MLflow after real runs: what stands in it, that nothing is counted twice, and that an outage loses nothing."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pyarrow.parquet
import pytest
from mlflow import MlflowClient

from knowrl_core.config import build_config, deep_merge
from knowrl_core.report.table import best_iteration
from knowrl_core.storage.layout import STAGES, RunPaths, StageKey, stage_keys
from knowrl_core.storage.run_file import ConfigChange, RunFile
from knowrl_core.storage.verify import committed_manifests
from tasks.reporter import Reporter
from tasks.tracking import Tracker
from tests.browser import chromium, needs_chromium, open_file
from tests.e2e.helpers import STEPS, TINY, environment_of, in_stage, kill_group, knowrl, start, wait_for
from tests.e2e.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ITERATIONS = 4
SMALL = [option for option in TINY if "tracking" not in option]
OPTIONS = [STEPS, "--set=tracking.system_metrics_seconds=1"]
NOWHERE = "http://127.0.0.1:1"
MODEL = "knowrl-smoke"


def command(root, iterations=ITERATIONS):
    return [
        "run",
        "--config",
        "smoke",
        f"--set=run.root={root}",
        f"--set=run.iterations={iterations}",
        *OPTIONS,
        *SMALL,
    ]


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
            if not name.endswith("seconds") and not name.startswith("system/")
        }

    def lengths(self, run):
        return {
            name: len(self.client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
            if not name.startswith("system/")
        }

    def system(self, run):
        """The steps of each system metric."""
        return {
            name: [point.step for point in self.client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
            if name.startswith("system/")
        }

    def datasets(self, run):
        return [
            (item.dataset.name, item.dataset.digest, [tag.value for tag in item.tags])
            for item in run.inputs.dataset_inputs
        ]

    def versions(self, name=MODEL):
        return self.client.search_model_versions(f"name = '{name}'")

    def best(self, name=MODEL):
        return self.client.get_model_version_by_alias(name, "best")


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
        self.best = best_iteration(self.history)
        assert self.best, "the best is the untouched model, which is not registered: helpers.STEPS needs another seed"

    def tracker(self, uri="auto", reporter=None, run_file=None, **tracking):
        config = build_config(deep_merge(self.run_file.config, {"tracking": {"uri": uri, **tracking}}))
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
    experiment = seen.client.get_experiment_by_name("knowrl")
    view = json.loads(experiment.tags["mlflow.sharedViewState.knowrliterations"])
    assert "metrics.`at_a_glance/balanced_accuracy`" in json.loads(view["state"])["selectedColumns"]
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
    assert [step for step, _ in seen.points(parent)["at_a_glance/f1"]] == [0, 1, 2, 3, 4]
    assert [step for step, _ in seen.points(parent)["at_a_glance/reward"]] == [1, 2, 3, 4]
    assert [child.data.tags.get("knowrl.best") for child in seen.children].count("yes") == 1
    assert seen.children[finished.best].data.tags["knowrl.best"] == "yes"
    assert parent.data.tags["knowrl.best"] == f"it{finished.best:03d}"
    assert "against iteration 0" in seen.children[finished.best].data.tags["mlflow.note.content"]
    # What is listed and compared first, in the order in which it was logged.
    assert all(next(iter(run.data.metrics)) == "at_a_glance/balanced_accuracy" for run in seen.children)


def test_parameters_are_those_that_tell_runs_apart(finished):
    seen = Seen(store(finished.root))
    params = seen.children[1].data.params
    assert len(params) < 45
    assert params["introspection.calls_per_label"] == "3"  # always
    assert params["evaluation.probe_limit"] == "8"  # since it differs from the default
    assert "consensus.pool_max_size" not in params  # is the default
    assert not [name for name in params if name.startswith(("tracking.", "retention.", "run.root"))]


def test_datasets_of_an_iteration(finished):
    seen = Seen(store(finished.root))
    [parent] = seen.parents
    datasets = {name: (digest, context) for name, digest, [context] in seen.datasets(seen.children[2])}
    assert {name: context for name, (_, context) in datasets.items()} == {
        "consensus tasks": "train",
        "probe": "eval",
        "paired": "eval",
        "frozen tasks": "eval",
        "feasible seeds": "few-shot",
        "infeasible seeds": "few-shot",
        "pool": "few-shot",
    }
    for key, name, dataset in (
        (StageKey(2, "consensus"), "consensus.parquet", "consensus tasks"),
        (StageKey(1, "consensus"), "pool.parquet", "pool"),
    ):
        [ref] = [ref for ref in finished.history[key].outputs if ref.path.endswith(name)]
        assert datasets[dataset][0] == ref.sha256[:36]
        [item] = [item for item in seen.children[2].inputs.dataset_inputs if item.dataset.name == dataset]
        source = json.loads(item.dataset.source)
        assert source["sha256"] == ref.sha256
        assert Path(source["uri"]).exists()
        assert json.loads(item.dataset.profile) == {"num_rows": ref.rows}
        assert "task" in {column["name"] for column in json.loads(item.dataset.schema)["mlflow_colspec"]}
    assert datasets["probe"][0] == finished.run_file.pins["files.probe"][:36]
    assert {name for name, _, _ in seen.datasets(parent)} == {"probe", "paired", "feasible seeds", "infeasible seeds"}


def test_system_metrics_have_one_value_a_step(finished):
    seen = Seen(store(finished.root))
    system = seen.system(seen.parents[0])
    assert {"system/cpu_utilization_percentage", "system/run_memory_peak_megabytes", "system/run_cpu_cores"} <= set(
        system
    )
    for steps in system.values():
        assert len(steps) == len(set(steps)) > 1
    assert seen.parents[0].data.metrics["system/run_memory_peak_megabytes"] > 100
    assert all(not seen.system(child) for child in seen.children)


def test_the_best_checkpoint_is_a_model_version(finished, tmp_path):
    from transformers import AutoModelForCausalLM

    seen = Seen(store(finished.root))
    [version] = seen.versions()
    assert version.version == seen.best().version
    assert version.run_id == seen.children[finished.best].info.run_id
    score = finished.history[StageKey(finished.best, "evaluate")].metrics["probe/balanced_accuracy"]
    assert f"**{score:.3f}** (95 % interval" in version.description
    assert "tiny-random" in version.description
    assert "## Limits" in version.description
    assert AutoModelForCausalLM.from_pretrained(version.tags["knowrl.checkpoint"]).num_parameters() > 0
    files = {item.path for item in seen.client.list_artifacts(version.run_id, "model")}
    assert files == {"model/README.md", "model/metrics.json", "model/checkpoint.json"}  # and no weights
    folder = Path(seen.client.download_artifacts(version.run_id, "model", str(tmp_path)))
    assert json.loads((folder / "checkpoint.json").read_text())["checkpoint"] == version.tags["knowrl.checkpoint"]


def test_the_files_are_uploaded_once_where_that_is_asked_for(finished, tmp_path):
    import mlflow
    from transformers import AutoModelForCausalLM, AutoTokenizer

    uri = store(tmp_path)
    finished.log(uri)
    for _ in range(2):
        tracker = finished.tracker(uri, registry="upload")
        tracker.open(finished.history)
        tracker.close("completed")
    [version] = Seen(uri).versions()
    assert version.tags["knowrl.registry"] == "upload"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        folder = mlflow.artifacts.download_artifacts(f"models:/{MODEL}@best")
    finally:
        mlflow.set_tracking_uri(before)
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    assert AutoTokenizer.from_pretrained(folder).vocab_size > 0
    assert not (Path(folder) / "optimizer").exists()


def with_scores(history, scores):
    """The history with other balanced accuracies on the probe."""
    changed = dict(history)
    for iteration, score in scores.items():
        key = StageKey(iteration, "evaluate")
        metrics = {**history[key].metrics, "probe/balanced_accuracy": score}
        changed[key] = history[key].model_copy(update={"metrics": metrics})
    return changed


def test_the_alias_follows_the_best_and_an_older_version_says_what_became_of_it(finished, tmp_path):
    uri = store(tmp_path / "store")
    copy = Finished.__new__(Finished)
    copy.__dict__ |= finished.__dict__
    copy.paths = RunPaths(tmp_path, "smoke")
    shutil.copytree(finished.paths.folder, copy.paths.folder)
    finished_as = lambda history: copy.log(uri, history)  # noqa: E731
    finished_as(finished.history)
    # More iterations, as it were: another one is the best now, and its predecessor is pruned.
    copy.history = with_scores(finished.history, {ITERATIONS: 0.99})
    checkpoint = copy.paths.file(StageKey(finished.best, "update"), "checkpoint")
    shutil.rmtree(checkpoint)
    seen_runs = Seen(uri).children
    client = Seen(uri).client
    first = Seen(uri).best()
    client.set_registered_model_alias(MODEL, "mine", first.version)
    finished_as(copy.history)
    seen = Seen(uri)
    assert seen.best().tags["knowrl.iteration"] == str(ITERATIONS)
    kept = client.get_model_version_by_alias(MODEL, "mine")  # its runs were logged anew, and somebody uses it
    assert (kept.version, kept.tags["knowrl.checkpoint_state"]) == (first.version, "replaced")
    assert len(seen.versions()) == 2
    assert {run.info.run_id for run in seen.children}.isdisjoint({run.info.run_id for run in seen_runs})
    # The best one's checkpoint is not there: there is nothing to refer to.
    finished_as(with_scores(finished.history, {finished.best: 0.98}))
    seen = Seen(uri)
    assert "was pruned" in seen.parents[0].data.tags["knowrl.model"]
    assert "best" not in client.get_registered_model(MODEL).aliases
    # The untouched model is the best.
    finished_as(with_scores(finished.history, {0: 1.0}))
    assert "untouched model" in Seen(uri).parents[0].data.tags["knowrl.model"]
    assert [version.tags["knowrl.checkpoint_state"] for version in Seen(uri).versions()] == ["replaced"]


def test_a_part_of_the_stages_registers_nothing(finished, tmp_path):
    uri = store(tmp_path)
    part = {key: manifest for key, manifest in finished.history.items() if key.iteration <= finished.best}
    finished.log(uri, part)
    assert Seen(uri).versions() == []
    finished.log(uri)
    assert len(Seen(uri).versions()) == 1


def test_artifacts_of_an_iteration(finished, tmp_path):
    seen = Seen(store(finished.root))
    child = seen.children[finished.best].info.run_id
    assert {item.path for item in seen.client.list_artifacts(child)} == {*STAGES, "config.yaml", "model"}
    file = seen.client.download_artifacts(child, "evaluate/predictions.parquet", str(tmp_path))
    assert pyarrow.parquet.read_table(file).num_rows > 0
    names = {item.path for item in seen.client.list_artifacts(child, "update")}
    assert names == {"update/manifest.json", "update/rollouts.parquet", "update/training.parquet"}
    parent = [item.path for item in seen.client.list_artifacts(seen.parents[0].info.run_id)]
    assert parent == ["config.yaml", "report.html", "run.json"]


def test_tables_that_are_too_large_stay_where_they_are(finished, tmp_path):
    tracker = finished.tracker(store(tmp_path), artifact_megabytes=0.006)
    tracker.open(finished.history)
    tracker.close("completed")
    seen = Seen(store(tmp_path))
    names = {item.path for item in seen.client.list_artifacts(seen.children[2].info.run_id, "evaluate")}
    assert "evaluate/extrinsic.parquet" in names
    assert "evaluate/manifest.json" in names
    assert "evaluate/predictions.parquet" not in names


def test_the_report_is_in_the_folder_in_mlflow_and_in_prefect(finished, prefect_server, tmp_path):
    seen = Seen(store(finished.root))
    parent = seen.parents[0].info.run_id
    text = (finished.paths.folder / "report.html").read_text()
    assert Path(seen.client.download_artifacts(parent, "report.html", str(tmp_path))).read_text() == text
    assert f"It is complete: {ITERATIONS} of {ITERATIONS} iterations" in text
    wanted = {"artifacts": {"key": {"any_": ["knowrl-smoke-report"]}}}
    [artifact] = httpx.post(f"{prefect_server}/artifacts/filter", json=wanted).raise_for_status().json()
    assert artifact["flow_run_id"]
    assert "report.html" in artifact["data"]


@needs_chromium
def test_the_report_of_a_real_run_in_a_real_browser(finished):
    with chromium() as browser:
        page, trouble = open_file(browser.new_context(), finished.paths.folder / "report.html")
        assert page.locator("h1").text_content() == "smoke"
        charts = page.locator("figure.chart")
        assert charts.count() >= 12
        assert all(chart.locator("svg.area").bounding_box()["width"] > 100 for chart in charts.all())
        assert trouble == []


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
        assert expected.datasets(before) == seen.datasets(after)
    for steps in seen.system(seen.parents[0]).values():
        assert len(steps) == len(set(steps)) > 1
    # Select all iterations and compare: each has a number in every column, and what the columns say is the manifests'.
    columns = [column for column in expected.children[1].data.metrics if column.startswith("at_a_glance/")]
    assert len(columns) == 7
    compared = [[child.data.metrics[column] for column in columns] for child in seen.children[1:]]
    assert compared == [[child.data.metrics[column] for column in columns] for child in expected.children[1:]]
    [before], [after] = expected.versions(), seen.versions()
    assert after.tags["knowrl.weights"] == before.tags["knowrl.weights"]
    assert after.run_id == seen.children[finished.best].info.run_id
    knowrl(*command(tmp_path), home=home, check=0, PREFECT_API_URL=prefect_server)  # with nothing left to do
    assert [version.version for version in Seen(store(tmp_path)).versions()] == [after.version]


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
    assert params == ["0.5", "0.5", str(now), str(now), str(now)]


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
        assert [seen.datasets(child) for child in seen.children] == [local.datasets(child) for child in local.children]
        assert [version.tags["knowrl.iteration"] for version in seen.versions()] == [str(finished.best)]
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
