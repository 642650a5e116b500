"""Forks, going back, verification and removal, through the real command."""

import json
import shutil

import pytest
from mlflow import MlflowClient

from knowrl_core.storage.layout import RunPaths, StageKey, stage_keys
from knowrl_core.storage.run_file import RunFile
from tests.e2e.helpers import STEPS, TINY, artifacts, knowrl, manifests

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ITERATIONS = 3
AT = StageKey(3, "update")
KEYS = list(stage_keys(ITERATIONS, warmup=False))
SHARED, OWN = KEYS[: KEYS.index(AT)], KEYS[KEYS.index(AT) :]


@pytest.fixture(scope="module")
def run(tmp_path_factory, home, prefect_server):
    """Run the command in one root."""
    root = tmp_path_factory.mktemp("root")

    def call(*arguments, check=0):
        return knowrl(*arguments, f"--set=run.root={root}", home=home, check=check, PREFECT_API_URL=prefect_server)

    call.root = root
    return call


@pytest.fixture(scope="module")
def parent(run):
    options = [item for item in TINY if "tracking" not in item]
    sizes = [f"--set=run.iterations={ITERATIONS}", "--set=retention.keep_last=2", "--set=retention.keep_best=false"]
    run("run", "--config=smoke", *options, *sizes, STEPS)
    return RunPaths(run.root, "smoke")


@pytest.fixture(scope="module")
def fork(run, parent):
    """A fork with another KL coefficient."""
    done = run("fork", "smoke", "other", f"--at={AT}", "--set=rl.kl_coef=0.5")
    return RunPaths(run.root, "other"), done


def inodes(paths, keys):
    return {
        path.relative_to(paths.folder).as_posix(): path.stat().st_ino
        for key in keys
        for path in paths.stage(key).rglob("*")
        if path.is_file()
    }


def test_a_fork_shares_its_past_without_a_copy_and_differs_afterwards(parent, fork):
    paths, done = fork
    assert f"run other was forked from smoke at {AT}; it shares" in done.stderr
    assert f"resuming at {AT}" in done.stderr
    shared = inodes(paths, SHARED)
    assert shared == {**inodes(parent, SHARED), **shared}  # the parent may have pruned since
    assert len(shared) > 10
    assert not set(inodes(parent, OWN).values()) & set(inodes(paths, OWN).values())
    mine, theirs = artifacts(paths.folder), artifacts(parent.folder)
    changed = {name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]}
    assert f"iterations/{AT}/checkpoint/model.safetensors" in changed or f"iterations/{AT}/training.parquet" in changed
    assert not {name for name in changed if name.startswith(("iterations/000", "iterations/001", "iterations/002"))}
    file = RunFile.read(paths)
    assert (file.forked_from.run, file.forked_from.at) == ("smoke", str(AT))
    assert file.forked_from.run_id == RunFile.read(parent).run_id != file.run_id
    assert [(c.field, c.new, c.first_stage) for c in file.changes] == [("rl.kl_coef", 0.5, str(AT))]
    assert [attempt.first_stage for attempt in file.attempts] == [str(AT)]


def test_a_fork_without_a_change_repeats_the_run(run, parent):
    run("fork", "smoke", "same", "--at=2/evaluate", "--no-run")
    paths = RunPaths(run.root, "same")
    assert not RunFile.read(paths).attempts
    run("resume", "same")
    assert artifacts(paths.folder) == artifacts(parent.folder)
    run("remove", "same", "--yes")
    assert not paths.folder.exists()


def test_both_are_comparable_in_mlflow(run, parent, fork):
    client = MlflowClient(f"sqlite:///{run.root / 'mlflow.db'}")
    (experiment,) = [item for item in client.search_experiments() if item.name == "knowrl"]
    runs = client.search_runs([experiment.experiment_id])
    parents = {item.info.run_name: item for item in runs if "mlflow.parentRunId" not in item.data.tags}
    assert {"smoke", "other"} <= parents.keys()
    assert parents["other"].data.tags["knowrl.forked_from"] == f"smoke at {AT}"
    for name in ("smoke", "other"):
        points = client.get_metric_history(parents[name].info.run_id, "at_a_glance/balanced_accuracy")
        assert sorted(point.step for point in points) == list(range(ITERATIONS + 1))
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parents["other"].info.run_id]
    coefficients = {r.data.tags["knowrl.iteration"]: float(r.data.params["rl.kl_coef"]) for r in children}
    before = float(RunFile.read(parent).config["rl"]["kl_coef"])
    assert coefficients == {"0": before, "1": before, "2": before, "3": 0.5}


def test_a_run_with_forks_is_not_removed(run, parent, fork):
    done = run("remove", "smoke", "--yes", check=2)
    assert "is the past of other" in done.stderr
    assert parent.folder.exists()
    # By force, on a copy of the two, the fork stays whole: it owns what it shares.
    for name in ("smoke", "other"):
        shutil.copytree(run.root / name, run.root / "copies" / name)
    knowrl("remove", str(run.root / "copies" / "smoke"), "--yes", "--force", home=run.root, check=0)
    assert not (run.root / "copies" / "smoke").exists()
    knowrl("verify", str(run.root / "copies" / "other"), home=run.root, check=0)
    shutil.rmtree(run.root / "copies")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smoke", "other", "--at=3/update"], "exists, expected a new name"),
        (["smoke", "new", "--at=9/update"], "has no such stage"),
        (["smoke", "new", "--at=4/generate", "--set=run.iterations=5"], None),
        (["smoke", "new", "--at=4/classify", "--set=run.iterations=5"], "004/generate is not committed yet"),
        (["smoke", "new", "--at=2/nonsense"], "expected ITERATION/STAGE"),
        (["smoke", "new", "--at=3/update", "--set=run.seed=5"], "run.seed"),
        (["smoke", "../new", "--at=2/update"], "run.name"),
        (["nobody", "new", "--at=2/update"], "no run 'nobody'"),
        (["smoke", "new", "--at=3/update", "--set=files.feasible=/etc/hostname"], "hostname"),
    ],
)
def test_what_cannot_be_forked(run, parent, fork, arguments, message):
    before = manifests(parent.folder)
    done = run("fork", *arguments, "--no-run", check=0 if message is None else 2)
    assert message is None or message in done.stderr
    assert (run.root / "new").exists() == (message is None)
    if message is None:
        run("remove", "new", "--yes")
    assert manifests(parent.folder) == before
    assert not list(run.root.glob(".*.fork"))


def test_going_back_does_the_stages_again_and_is_recorded(run, parent, fork):
    again = run.root / "again" / "smoke"
    shutil.copytree(parent.folder, again)
    before = artifacts(again)
    done = run("resume", str(again), "--from=3/consensus", "--set=tracking.enabled=false")
    assert "going back: 003/consensus and what follows are done again" in done.stderr
    assert "resuming at 003/consensus" in done.stderr
    assert artifacts(again) == before
    old, new = manifests(parent.folder), manifests(again)
    redone = {f"iterations/003/{stage}" for stage in ("consensus", "update", "evaluate")}
    assert {name for name in old if old[name] != new[name]} == redone
    file = RunFile.read(RunPaths(again.parent, "smoke"))
    assert [(item.first_stage, item.why) for item in file.redone] == [("003/consensus", "asked for")]

    status = json.loads(run("status", str(again), "--json").stdout)
    assert "003/consensus" in status["starting_points"]
    assert "001/evaluate" not in status["starting_points"]
    run("fork", str(again), "probe", f"--at={status['starting_points'][-3]}", "--set=tracking.enabled=false")
    assert artifacts(again.parent / "probe") == before
    run("remove", str(again.parent / "probe"), "--yes")
    run("remove", str(again), "--yes")


def test_a_pruned_checkpoint_is_made_again(run, parent, fork):
    weights = parent.file(StageKey(1, "update"), "checkpoint/model.safetensors")
    assert not weights.exists()
    done = run(
        "fork", "smoke", "earlier", "--at=2/update", "--set=rl.learning_rate=1e-3", "--set=retention.keep_last=9"
    )
    assert "002/update needs pruned checkpoints: those of iteration 1 are made again" in done.stderr
    paths = RunPaths(run.root, "earlier")
    run("verify", "earlier")
    assert paths.file(StageKey(1, "update"), "checkpoint/model.safetensors").exists()
    assert not weights.exists()
    mine, theirs = artifacts(paths.folder), artifacts(parent.folder)
    name = "checkpoint/model.safetensors"
    assert mine[f"iterations/002/update/{name}"] != theirs[f"iterations/002/update/{name}"]
    run("fork", "smoke", "repeated", "--at=2/update")
    again = artifacts(run.root / "repeated")
    assert {key: again[key] for key in theirs if not key.endswith("pruned.json")} == {
        key: theirs[key] for key in theirs if not key.endswith("pruned.json")
    }
    for name in ("earlier", "repeated"):
        run("remove", name, "--yes")


def test_verify_names_all_that_is_damaged(run, parent):
    shutil.copytree(parent.folder, run.root / "damaged")
    paths = RunPaths(run.root, "damaged")
    assert "run damaged is whole" in run("verify", "damaged").stdout
    report = json.loads(run("verify", "damaged", "--json").stdout)
    files = [path for path in (paths.folder / "iterations").rglob("*") if path.is_file() and path.suffix != ".json"]
    assert report["stages"] == len(KEYS)
    assert report["problems"] == []
    assert report["bytes"] >= sum(path.stat().st_size for path in files)
    verdicts = paths.file(StageKey(1, "classify"), "verdicts.parquet")
    content = bytearray(verdicts.read_bytes())
    content[len(content) // 2] ^= 1
    verdicts.write_bytes(content)
    paths.file(StageKey(2, "generate"), "candidates.parquet").unlink()
    (paths.stage(StageKey(3, "evaluate")) / "manifest.json").write_text("{")
    done = run("verify", "damaged", check=4)
    for name in ("001/classify/verdicts.parquet", "002/generate/candidates.parquet", "003/evaluate/manifest.json"):
        assert name in done.stderr
    assert "3 problem(s)" in done.stderr
    assert len(json.loads(run("verify", "damaged", "--json", check=4).stdout)["problems"]) == 3
    run("remove", "damaged", "--yes", "--force")
