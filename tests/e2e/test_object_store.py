"""A run whose root is an object store: kill, go on on another machine, verify, fork, remove; moto's S3 on loopback."""

import json
import os
import shutil
import signal

import pytest

from knowrl_core.storage.layout import StageKey
from knowrl_core.storage.roots import COPIES
from tests.e2e.helpers import TINY, artifacts, kill_group, knowrl, start, wait_for
from tests.e2e.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
URL = "s3://bucket/team/runs"
SIZES = ["--config=smoke", "--set=run.iterations=2", *TINY]
AT = StageKey(2, "update")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, home, prefect_server):
    root = tmp_path_factory.mktemp("local")
    knowrl("run", f"--set=run.root={root}", *SIZES, home=home, check=0, PREFECT_API_URL=prefect_server)
    return artifacts(root / "smoke")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Environment of a bucket, and its content as a local folder."""
    server = Server("s3", tmp_path_factory.mktemp("s3"))
    server.start()
    environment = {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    from s3fs import S3FileSystem

    keys = {"key": "test", "secret": "test", "client_kwargs": {"endpoint_url": server.url}}
    files = S3FileSystem(**keys, use_listings_cache=False)
    files.mkdir("bucket")
    yield environment, files
    server.kill()


@pytest.fixture(scope="module")
def call(tmp_path_factory, home, prefect_server, store):
    """Run the command on one of several machines, told apart by their working copies."""
    machines = tmp_path_factory.mktemp("machines")

    def environment(machine):
        return {**store[0], COPIES: str(machines / machine), "PREFECT_API_URL": prefect_server}

    def run(machine, *arguments, check=0):
        return knowrl(*arguments, f"--set=run.root={URL}", home=home, check=check, **environment(machine))

    run.environment, run.machines = environment, machines
    return run


def content(files, name, folder):
    """Artifacts of a run as the store has them."""
    shutil.rmtree(folder, ignore_errors=True)
    files.get(f"{URL}/{name}", str(folder), recursive=True)
    return artifacts(folder)


def reports_are_there(files, call):
    """The flow left one in the store, and a machine that has nothing makes one of both runs."""
    assert files.exists(f"{URL}/smoke/report.html")
    shown = json.loads(call("fourth", "report", "smoke", "other", "--json").stdout)["runs"]
    assert [(run["place"], run["iterations"]) for run in shown] == [
        (f"{URL}/smoke", [0, 1, 2]),
        (f"{URL}/other", [0, 1, 2]),
    ]
    assert [run["forked_from"] for run in shown] == [None, f"smoke at {AT}"]


def test_the_whole_life_of_a_run(tmp_path, home, store, call, uninterrupted):
    files = store[1]

    # killed in the middle: what is committed is in the store
    process = start(
        "run", f"--set=run.root={URL}", *SIZES, home=home, log=tmp_path / "log", **call.environment("first")
    )
    consensus = f"{URL}/smoke/iterations/001/consensus/manifest.json"
    wait_for(lambda: files.exists(consensus), process=process, what=consensus)
    assert files.exists(f"{URL}/smoke/.progress.json"), "nobody elsewhere can see how far it is"

    # a second process is refused, on this machine and on another
    os.killpg(process.pid, signal.SIGSTOP)  # or it would be done by then
    for machine in ("second", "first"):
        refused = call(machine, "resume", "smoke", check=3)
        assert f"is being written by process {process.pid} on {os.uname().nodename}, started" in refused.stderr
    kill_group(process)
    assert json.loads(call("second", "status", "smoke", "--json").stdout)["stages_committed"] >= 5
    before = files.find(f"{URL}/smoke/iterations", detail=True)

    # the same machine goes on at once, and is killed again by SIGTERM
    process = start(
        "resume", "smoke", f"--set=run.root={URL}", home=home, log=tmp_path / "log", **call.environment("first")
    )
    wait_for(lambda: files.exists(consensus.replace("consensus", "evaluate")), process=process, what="001/evaluate")
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    assert f"--set run.root={URL}" in (tmp_path / "log").read_text().replace("\n", " ")

    # another machine takes it to the end
    done = call("second", "resume", "smoke")
    assert "stages are committed" in done.stderr
    assert content(files, "smoke", tmp_path / "copy") == uninterrupted
    after = files.find(f"{URL}/smoke/iterations", detail=True)
    again = [name for name in before if name.endswith("manifest.json") and after[name]["ETag"] != before[name]["ETag"]]
    assert not again, "a committed stage was done again"

    # the first machine's copy follows, and a third one starts from nothing
    for machine in ("first", "third"):
        assert "nothing to do" in call(machine, "resume", "smoke").stderr
        (copy,) = (call.machines / machine).glob("*/smoke")
        assert artifacts(copy) == uninterrupted

    # fork: the store makes the copies
    done = call("third", "fork", "smoke", "other", f"--at={AT}", "--set=rl.kl_coef=0.5")
    assert "made by the object store" in done.stderr
    assert f"resuming at {AT}" in done.stderr
    other = content(files, "other", tmp_path / "other")
    different = {name for name in other.keys() & uninterrupted.keys() if other[name] != uninterrupted[name]}
    assert different
    assert all(name.startswith(("iterations/002/update", "iterations/002/evaluate")) for name in different)
    assert json.loads((tmp_path / "other" / "run.json").read_text())["forked_from"]["at"] == str(AT)
    listed = json.loads(call("second", "status", "--json").stdout)
    assert [(item["name"], item["state"]) for item in listed] == [("other", "completed"), ("smoke", "completed")]

    reports_are_there(files, call)

    # verify reads the store; damage there is found, and repaired
    assert json.loads(call("second", "verify", "smoke", "--json").stdout)["problems"] == []
    bent = f"{URL}/smoke/iterations/002/classify/verdicts.parquet"
    whole = files.cat_file(bent)
    files.pipe_file(bent, whole[:-20] + b"\0" * 20)
    assert bent in call("second", "verify", "smoke", check=4).stderr.replace("\n", "")
    refused = call("second", "resume", "smoke", check=4)
    assert "--repair" in refused.stderr
    call("second", "resume", "smoke", "--repair")
    assert content(files, "smoke", tmp_path / "copy") == uninterrupted

    # removal is refused while a fork is there
    assert "is the past of other" in call("second", "remove", "smoke", "--yes", check=2).stderr
    call("second", "remove", "other", "--yes")
    call("second", "remove", "smoke", "--yes")
    assert files.find(URL) == []
    assert "no run 'smoke'" in call("first", "resume", "smoke", check=2).stderr.replace("\n", " ")


def test_a_bucket_that_is_not_there_is_refused_before_any_work(home, call):
    refused = knowrl("run", *SIZES, "--set=run.root=s3://nowhere/x", home=home, check=2, **call.environment("first"))
    assert "run.root: s3://nowhere/x cannot be written to" in refused.stderr.replace("\n", " ")
    assert not list((call.machines / "first").glob("nowhere*"))
