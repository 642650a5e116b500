"""Guards that end a run or roll it back, and a warm-up, in real runs."""

import json
import os
import shutil
import signal

import pytest

from knowrl_core.guards import Decision, parent_of, read_decision
from knowrl_core.storage.layout import CLASSIFY, GENERATE, UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import read_manifest
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.schemas import GuardRecord, RolloutRecord, StepRecord
from knowrl_core.storage.tables import read_table
from tests.e2e.helpers import STEPS, TINY, artifacts, in_stage, kill_group, knowrl, manifests, start, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GUARD = "guards.verdict_entropy"
FIRES = f"--set={GUARD}.lowest=0.7"  # more than two labels can have
LEARNING_RATE = 1e-4


def command(root, *options, iterations=3):
    return ["run", "--config=smoke", f"--set=run.root={root}", f"--set=run.iterations={iterations}", *TINY, *options]


def outcomes(paths):
    return [attempt.outcome for attempt in RunFile.read(paths).attempts]


def status(paths, home):
    place = f"--set=run.root={paths.root}"
    return json.loads(knowrl("status", "smoke", place, "--json", home=home, check=0).stdout)


def checkpoint(paths, iteration):
    """Path and sha256 of the checkpoint files of an iteration, as others name them; iteration 0 has none."""
    if iteration == 0:
        return set()
    outputs = read_manifest(paths.stage(StageKey(iteration, UPDATE))).outputs
    return {(ref.path, ref.sha256) for ref in outputs if "/checkpoint/" in ref.path}


def test_stop_and_how_to_go_on(tmp_path, home, prefect_server):
    paths = RunPaths(tmp_path, "smoke")
    tracked = "--set=tracking.enabled=true"
    environment = {"PREFECT_API_URL": prefect_server, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    done = knowrl(*command(tmp_path, FIRES, f"--set={GUARD}.action=stop", tracked), home=home, check=0, **environment)

    assert "warning: 000/evaluate: guard verdict_entropy (warn)" in done.stderr  # the untouched model may go on
    assert "warning: 001/evaluate: guard verdict_entropy (stop)" in done.stderr
    assert "stopped by a guard after iteration 1" in done.stdout
    assert not paths.stage(StageKey(2, GENERATE)).exists()
    assert read_decision(paths, 1).stop
    (firing,) = read_table(paths.stage(StageKey(1, "evaluate")) / "guards.parquet", GuardRecord)
    assert (firing.guard, firing.metric, firing.action) == ("verdict_entropy", "probe/verdict_entropy", "stop")
    assert firing.value < firing.bound == 0.7
    metrics = read_manifest(paths.stage(StageKey(1, "evaluate"))).metrics
    assert metrics["guards/verdict_entropy"] == 1
    assert metrics["guards/fired"] >= 1
    item = status(paths, home)
    assert item["state"] == "stopped"
    assert f"--set {GUARD}.action=warn" in item["stopped"]
    assert [row["guard"] for row in item["guards"] if row["action"] == "stop"] == ["verdict_entropy"]
    shown = knowrl("status", "smoke", f"--set=run.root={tmp_path}", home=home, check=0).stdout
    assert "stopped by a guard after iteration 1" in shown
    parent, children = tracked_runs(tmp_path, "smoke")
    assert parent.data.tags["knowrl.stopped"] == read_decision(paths, 1).reason
    assert "it001 verdict_entropy (stop)" in parent.data.tags["knowrl.guards"]
    assert "Stopped by a guard after iteration 1" in parent.data.tags["mlflow.note.content"]
    assert parent.info.status == "FINISHED"
    assert "verdict_entropy (stop)" in children[1].data.tags["knowrl.guards"]
    assert children[1].data.metrics["evaluate/guards/verdict_entropy"] == 1

    before = manifests(paths.folder)
    resume = ["resume", "smoke", f"--set=run.root={tmp_path}"]
    again = knowrl(*resume, home=home, check=0, **environment)
    assert "stopped by a guard after iteration 1" in again.stdout
    assert "probe/verdict_entropy is " in again.stdout
    assert "guards.verdict_entropy.lowest (0.7)" in again.stdout
    assert manifests(paths.folder) == before

    on = knowrl(*resume, f"--set={GUARD}.action=warn", home=home, check=0, **environment)
    assert "the guards no longer stop the run after iteration 1; it goes on from iteration 1" in on.stderr
    assert "stopped by a guard" not in on.stdout
    after = manifests(paths.folder)
    assert {name: after[name] for name in before} == before
    assert paths.stage(StageKey(3, "evaluate")).exists()
    assert outcomes(paths) == ["stopped", "stopped", "completed"]
    assert status(paths, home)["state"] == "completed"
    parent, _ = tracked_runs(tmp_path, "smoke")
    assert parent.data.tags["knowrl.stopped"] == "no"


def tracked_runs(root, name):
    """The parent run and its children by iteration, as MLflow has them."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    runs = client.search_runs(
        [item.experiment_id for item in client.search_experiments()], f"tags.`knowrl.run` = '{name}'"
    )
    (parent,) = [run for run in runs if run.data.tags["knowrl.kind"] == "run"]
    children = {int(run.data.tags["knowrl.iteration"]): run for run in runs if "knowrl.iteration" in run.data.tags}
    return parent, children


KEEP_ONE = ["--set=retention.keep_best=false", "--set=retention.keep_last=1"]
ROLLBACK = [STEPS, FIRES, f"--set={GUARD}.action=rollback", *KEEP_ONE]
FIRST, LAST = 3, 5  # the iterations that are rolled back


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, home, prefect_server):
    """A run up to the iteration before the first that is rolled back."""
    root = tmp_path_factory.mktemp("quiet")
    knowrl(*command(root, STEPS, iterations=FIRST - 1), home=home, check=0, PREFECT_API_URL=prefect_server)
    return RunPaths(root, "smoke")


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory, home, prefect_server, quiet):
    """That run, and the same gone on with while a guard fires in every iteration."""
    root = tmp_path_factory.mktemp("rollback")
    shutil.copytree(quiet.folder, root / "smoke")
    knowrl(*command(root, *ROLLBACK, iterations=LAST), home=home, check=0, PREFECT_API_URL=prefect_server)
    return quiet, RunPaths(root, "smoke")


def test_rollback_starts_from_the_best_with_a_lower_learning_rate(rolled_back):
    _, paths = rolled_back
    truths = {
        number: read_manifest(paths.stage(StageKey(number, "evaluate"))).metrics["probe/balanced_accuracy"]
        for number in range(FIRST)
    }
    best = max(truths, key=lambda number: (truths[number], -number))
    for iteration in range(FIRST, LAST + 1):
        decision = read_decision(paths, iteration)
        assert [point.iteration for point in decision.lineage] == list(range(best + 1))
        rollbacks = iteration - FIRST + 1
        assert (decision.parent, decision.rollbacks, decision.stop) == (best, rollbacks, False)
        assert decision.learning_rate_factor == 0.5**rollbacks
    for iteration in range(1, LAST + 1):
        update = read_manifest(paths.stage(StageKey(iteration, UPDATE)))
        factor = 0.5 ** max(iteration - FIRST, 0)
        assert update.metrics["learning_rate_factor"] == factor
        steps = read_table(paths.stage(StageKey(iteration, UPDATE)) / "training.parquet", StepRecord)
        assert steps, "no step was taken: helpers.STEPS needs another seed"
        assert {step.learning_rate for step in steps} == {LEARNING_RATE * factor}
        parent = parent_of(paths, iteration)
        assert parent == (iteration - 1 if iteration <= FIRST else best)
        for stage in (GENERATE, CLASSIFY, UPDATE):
            inputs = read_manifest(paths.stage(StageKey(iteration, stage))).inputs
            assert {(ref.path, ref.sha256) for ref in inputs if "/checkpoint/" in ref.path} == checkpoint(paths, parent)
            named = {ref.path for ref in inputs}
            assert parent or "external/model" in named
            assert stage == CLASSIFY or f"iterations/{iteration - 1:03d}/evaluate/decision.json" in named
        pool = [
            ref.path for ref in read_manifest(paths.stage(StageKey(iteration, GENERATE))).inputs if "pool" in ref.path
        ]
        assert pool == ([f"iterations/{parent:03d}/consensus/pool.parquet"] if parent else [])
    kept = {n for n in range(1, LAST + 1) if (paths.stage(StageKey(n, UPDATE)) / "checkpoint").exists()}
    assert kept == {LAST, best} - {0}


@pytest.mark.parametrize("stage", [GENERATE, UPDATE, "evaluate"])
def test_killed_after_a_rollback(tmp_path, home, prefect_server, rolled_back, stage):
    quiet, uninterrupted = rolled_back
    paths, arguments = RunPaths(tmp_path, "smoke"), command(tmp_path, *ROLLBACK, iterations=LAST)
    shutil.copytree(quiet.folder, paths.folder)
    kill_in(StageKey(FIRST + 1, stage), arguments, paths, home, prefect_server)
    knowrl(*arguments, home=home, check=0, PREFECT_API_URL=prefect_server)
    assert artifacts(paths.folder) == artifacts(uninterrupted.folder)


def kill_in(key, arguments, paths, home, server):
    """Start the run and kill it inside the stage."""
    process = start(*arguments, home=home, log=paths.root / "log", PREFECT_API_URL=server)
    wait_for(in_stage(paths, key), process=process, what=f"stage {key}")
    os.killpg(process.pid, signal.SIGSTOP)
    assert not paths.stage(key).exists(), f"{key} was over too soon"
    kill_group(process)


@pytest.mark.parametrize("option", ["guards.after_rollback=end", "guards.max_rollbacks=0"])
def test_a_rollback_may_end_the_run(tmp_path, home, prefect_server, option):
    paths = RunPaths(tmp_path, "smoke")
    done = knowrl(*command(tmp_path, *ROLLBACK, f"--set={option}"), home=home, check=0, PREFECT_API_URL=prefect_server)
    assert "stopped by a guard after iteration 1" in done.stdout
    assert option.partition("=")[0] in done.stdout
    decision = read_decision(paths, 1)
    assert (decision.stop, decision.rollbacks) == (True, 1)
    assert decision.parent == 0
    assert outcomes(paths) == ["stopped"]


WARMUP = ["--set=warmup.epochs=2", "--set=warmup.share=0.2", "--set=warmup.batch_size=8"]


@pytest.fixture(scope="module")
def warmed_up(tmp_path_factory, home, prefect_server):
    root = tmp_path_factory.mktemp("warmup")
    done = knowrl(*command(root, *WARMUP, iterations=2), home=home, check=0, PREFECT_API_URL=prefect_server)
    assert "1 (warm-up)" in done.stdout
    return RunPaths(root, "smoke")


def test_warm_up_is_iteration_1(warmed_up, home):
    paths = warmed_up
    assert sorted(item.name for item in paths.stage(StageKey(1, UPDATE)).parent.iterdir()) == ["evaluate", "update"]
    rows = read_table(paths.stage(StageKey(1, UPDATE)) / "rollouts.parquet", RolloutRecord)
    assert len(rows) == 20  # a fifth of 50 seeds of each label
    assert sum(row.label == "feasible" for row in rows) == 10
    assert all(row.anchor and row.task_id.startswith("seed/") and row.reward == 1 for row in rows)
    steps = read_table(paths.stage(StageKey(1, UPDATE)) / "training.parquet", StepRecord)
    assert [step.epoch for step in steps] == [0, 0, 0, 1, 1, 1]
    assert {step.learning_rate for step in steps} == {1e-5}
    manifest = read_manifest(paths.stage(StageKey(1, UPDATE)))
    assert "reward/mean" not in manifest.metrics
    first = read_table(paths.stage(StageKey(2, UPDATE)) / "training.parquet", StepRecord)
    assert first[0].step == 1  # optimizer and schedule start anew
    assert not any("pool.parquet" in ref.path for ref in read_manifest(paths.stage(StageKey(2, GENERATE))).inputs)
    item = status(paths, home)
    assert [row["warmup"] for row in item["rows"]] == [False, True, False]
    assert item["stages"] == item["stages_committed"] == 9
    assert Decision.read(paths.stage(StageKey(1, "evaluate")) / "decision.json").lineage[1].reward is None


def test_warm_up_killed_and_resumed(tmp_path, home, prefect_server, warmed_up):
    paths = RunPaths(tmp_path, "smoke")
    arguments = command(tmp_path, *WARMUP, iterations=2)
    kill_in(StageKey(1, UPDATE), arguments, paths, home, prefect_server)
    done = knowrl(*arguments, home=home, check=0, PREFECT_API_URL=prefect_server)
    assert "resuming at 001/update: 2 of 9 stages" in done.stderr
    assert artifacts(paths.folder) == artifacts(warmed_up.folder)


def test_a_warm_up_cannot_be_turned_off_or_on_later(warmed_up, reference, home, prefect_server):
    before = manifests(warmed_up.folder), warmed_up.run_file.read_bytes()
    off = knowrl(
        "resume", "smoke", f"--set=run.root={warmed_up.root}", "--set=warmup.epochs=0", home=home, check=2,
        PREFECT_API_URL=prefect_server,
    )  # fmt: skip
    assert "warmup.epochs: got 0, expected more than 0" in off.stderr
    assert "--set warmup.epochs=2" in off.stderr
    assert (manifests(warmed_up.folder), warmed_up.run_file.read_bytes()) == before
    on = knowrl(
        "resume", "smoke", f"--set=run.root={reference.parent}", "--set=warmup.epochs=1", home=home, check=2,
        PREFECT_API_URL=prefect_server,
    )  # fmt: skip
    assert "warmup.epochs: got 1, expected 0" in on.stderr
