"""A stage that is killed late goes on where it was, and ends with the bytes of one that was not."""

import os
import re
import signal

import pytest

from knowrl_core.rl.snapshot import FILE
from knowrl_core.storage.layout import RunPaths, StageKey
from tests.e2e.helpers import TINY, artifacts, kill_group, knowrl, start, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
FINE = ["--set=run.iterations=1", "--set=engine.shard=2", "--set=rl.save_steps=1", "--set=rl.train_batch_size=4"]
CLASSIFY, UPDATE = StageKey(1, "classify"), StageKey(1, "update")


def command(root):
    return ["run", "--config=smoke", f"--set=run.root={root}", *TINY, *FINE]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, home, prefect_server):
    root = tmp_path_factory.mktemp("uninterrupted")
    knowrl(*command(root), home=home, check=0, PREFECT_API_URL=prefect_server)
    return artifacts(root / "smoke")


def kill_with(pattern, key, root, home, server):
    """Start the run and kill it once files of a pattern are kept for a stage; gives the run's paths."""
    paths = RunPaths(root, "smoke")
    process = start(*command(root), home=home, log=root / "log", PREFECT_API_URL=server)
    wait_for(lambda: any(paths.kept(key).glob(pattern)), process=process, what=f"kept files of {key}")
    os.killpg(process.pid, signal.SIGSTOP)
    assert not paths.stage(key).exists(), "the stage was faster than the test"
    kill_group(process)
    return paths


def test_answers_of_a_killed_stage_are_not_asked_for_again(tmp_path, home, prefect_server, uninterrupted):
    paths = kill_with("*/000000002.json", CLASSIFY, tmp_path, home, prefect_server)
    done = knowrl(*command(tmp_path), home=home, check=0, PREFECT_API_URL=prefect_server)
    assert f"resuming at {CLASSIFY}" in done.stderr
    found = re.search(rf"{CLASSIFY}: (\d+) of \d+ answers were there already", done.stderr)
    assert int(found[1]) >= 4
    assert artifacts(paths.folder) == uninterrupted
    assert not list(paths.folder.rglob("*.kept"))


def test_a_killed_update_goes_on_after_its_last_step(tmp_path, home, prefect_server, uninterrupted):
    paths = kill_with(FILE, UPDATE, tmp_path, home, prefect_server)
    knowrl(*command(tmp_path), home=home, check=0, PREFECT_API_URL=prefect_server)
    assert "the update goes on after" in (paths.logs / "worker.log").read_text()
    assert artifacts(paths.folder) == uninterrupted
    assert not list(paths.folder.rglob("*.kept"))
