"""kill -9 in each of the five stages, and after each the same command: the result equals an uninterrupted run's."""

import os
import signal

import httpx
import pytest

from knowrl_core.storage.layout import STAGES, RunPaths, StageKey
from knowrl_core.storage.run_file import RunFile
from tests.e2e.helpers import TINY, artifacts, in_stage, kill_group, knowrl, manifests, start, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ITERATIONS = 4


def command(root):
    return ["run", "--config", "smoke", f"--set=run.root={root}", f"--set=run.iterations={ITERATIONS}", *TINY]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, home, prefect_server):
    root = tmp_path_factory.mktemp("uninterrupted")
    knowrl(*command(root), home=home, check=0, PREFECT_API_URL=prefect_server)
    return artifacts(root / "smoke")


def kill_in(stage, root, home, server, log):
    """Start the run and kill it while it is inside the stage, of whichever iteration it can be caught in."""
    paths = RunPaths(root, "smoke")
    process = start(*command(root), home=home, log=log, PREFECT_API_URL=server)
    for iteration in range(1, ITERATIONS + 1):
        key = StageKey(iteration, stage)
        if paths.stage(key).exists():
            continue
        inside, done = in_stage(paths, key), paths.stage(key)
        wait_for(lambda inside=inside, done=done: inside() or done.exists(), process=process, what=f"stage {key}")
        os.killpg(process.pid, signal.SIGSTOP)  # hold it still to look where it is
        if inside() and not paths.stage(key).exists():
            kill_group(process)
            return key
        os.killpg(process.pid, signal.SIGCONT)
    kill_group(process)
    raise AssertionError(f"no iteration could be caught inside stage {stage}")


def prefect_state(server, attempt):
    return httpx.get(f"{server}/flow_runs/{attempt.prefect_flow_run}", timeout=30).json()["state_type"]


def test_killed_inside_every_stage(tmp_path, home, prefect_server, uninterrupted):
    folder, paths = tmp_path / "smoke", RunPaths(tmp_path, "smoke")
    killed, before = [], {}
    for stage in STAGES:
        killed.append(kill_in(stage, tmp_path, home, prefect_server, tmp_path / "log"))
        now = manifests(folder)
        assert {name: now[name] for name in before} == before, "a committed stage was run again"
        assert f"iterations/{killed[-1]}" not in now
        assert all(
            f"iterations/{killed[-1].iteration:03d}/{earlier}" in now for earlier in STAGES[: STAGES.index(stage)]
        )
        before = now

    done = knowrl(*command(tmp_path), home=home, check=0, PREFECT_API_URL=prefect_server)

    assert f"resuming at {killed[-1]}" in done.stderr
    after = manifests(folder)
    assert {name: after[name] for name in before} == before, "a committed stage was run again"
    assert artifacts(folder) == uninterrupted
    assert any(name.endswith("checkpoint/model.safetensors") for name in uninterrupted)
    attempts = RunFile.read(paths).attempts
    assert [attempt.outcome for attempt in attempts] == ["killed"] * len(STAGES) + ["completed"]
    assert [attempt.first_stage for attempt in attempts[1:]] == [str(key) for key in killed]
    assert not list(folder.rglob("*.partial"))
    assert [prefect_state(prefect_server, attempt) for attempt in attempts[:-1]] == ["CRASHED"] * len(STAGES)
