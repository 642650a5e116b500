"""A stage fails for a real cause: nothing of it stays, Prefect shows it, and the printed command goes on from there."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time

import httpx
import pytest

from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.run_file import RunFile
from tests.e2e.helpers import (
    TINY,
    artifacts,
    in_stage,
    knowrl,
    manifests,
    resume_command,
    start,
    wait_for,
    worker_of,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
UPDATE = StageKey(1, "update")
SCREEN = 24
SPACE = 1_400 * 1024
"""Bytes: enough for all tables and the weights of the tiny model, too little for its optimizer's state."""


def command(root, *more):
    return ["run", "--config=smoke", f"--set=run.root={root}", "--set=run.iterations=1", *TINY, *more]


def prefect_states(server, attempt):
    """What Prefect says of an attempt: the flow run's state, and of each task run its state and number of tries."""
    only = {"flow_runs": {"id": {"any_": [attempt.prefect_flow_run]}}}
    deadline = time.monotonic() + 60
    while True:  # task runs come as events, a moment later
        (flow,) = httpx.post(f"{server}/flow_runs/filter", json=only, timeout=30).json()
        tasks = httpx.post(f"{server}/task_runs/filter", json=only, timeout=30).json()
        if tasks and all(task["state_type"] in ("COMPLETED", "FAILED", "CRASHED") for task in tasks):
            return flow["state_name"], {task["name"]: (task["state_name"], task["run_count"]) for task in tasks}
        assert time.monotonic() < deadline, tasks
        time.sleep(0.2)


def check_failed(text, root, server, key, *causes):
    """The message, the folder, run.json and Prefect after a failure in a stage; gives the manifests that stand."""
    message = text[text.index("error: ") :]
    assert len(message.splitlines()) <= SCREEN, message
    assert "Traceback" not in text
    for part in (f"stage {key}", *causes):
        assert part in message
    paths = RunPaths(root, "smoke")
    assert not paths.stage(key).exists()
    assert not list(paths.folder.rglob("*.partial"))
    attempt = RunFile.read(paths).attempts[-1]
    assert attempt.outcome == "failed"
    assert all(part in attempt.error for part in (str(key), causes[0]))
    flow, tasks = prefect_states(server, attempt)
    assert flow == "Failed"
    assert tasks.pop(f"smoke/it{key.iteration:03d}/{key.stage}")[0] == "Failed"
    assert all(state == "Completed" for state, _ in tasks.values())
    before = manifests(paths.folder)
    assert len(before) == len(tasks)
    return before


def go_on(text, *more, root, home, server, key, before):
    """Resume with the printed command; earlier stages stay as they are."""
    done = knowrl(*resume_command(text), *more, home=home, check=0, PREFECT_API_URL=server)
    assert f"resuming at {key}" in done.stderr
    after = manifests(root / "smoke")
    assert {name: after[name] for name in before} == before
    run_file = RunFile.read(RunPaths(root, "smoke"))
    assert [attempt.outcome for attempt in run_file.attempts] == ["failed", "completed"]
    assert run_file.attempts[-1].first_stage == str(key)
    return run_file


def test_an_impossible_length_in_generate(tmp_path, home, prefect_server, reference):
    field = "introspection.sampling.max_new_tokens"
    key = StageKey(0, "generate")
    failed = knowrl(
        *command(tmp_path, f"--set={field}=100000"), home=home, check=1, PREFECT_API_URL=prefect_server
    ).stderr
    before = check_failed(failed, tmp_path, prefect_server, key, "tokens", "the model's context holds 4096")
    assert not before

    run_file = go_on(
        failed, f"--set={field}=48", root=tmp_path, home=home, server=prefect_server, key=key, before=before
    )

    changes = [(change.first_stage, change.field, change.old, change.new) for change in run_file.changes]
    assert changes == [(str(key), field, 100_000, 48)]
    assert artifacts(tmp_path / "smoke") == artifacts(reference)


def test_an_impossible_length_in_evaluate(tmp_path, home, prefect_server):
    field = "verdict.sampling.max_new_tokens"
    key = StageKey(0, "evaluate")
    failed = knowrl(
        *command(tmp_path, "--set=verdict.mode=free", f"--set={field}=100000"),
        home=home,
        check=1,
        PREFECT_API_URL=prefect_server,
    ).stderr
    before = check_failed(failed, tmp_path, prefect_server, key, "tokens", "the model's context holds 4096")
    assert list(before) == ["iterations/000/generate"]

    run_file = go_on(
        failed, f"--set={field}=8", root=tmp_path, home=home, server=prefect_server, key=key, before=before
    )

    assert [(change.first_stage, change.field) for change in run_file.changes] == [(str(key), field)]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own that is too small; gives the folder and what makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={SPACE}", "none", str(folder)], capture_output=True, check=False, text=True
    )
    if not done or done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip() if done else 'no mount command'}")
    try:
        yield folder, lambda: subprocess.run([mount, "-o", "remount,size=64m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(small_disk, home, prefect_server, reference):
    folder, enlarge = small_disk
    failed = knowrl(*command(folder), home=home, check=1, PREFECT_API_URL=prefect_server).stderr
    before = check_failed(failed, folder, prefect_server, UPDATE, "No space left", "Make room")
    assert len(before) == 5

    enlarge()
    go_on(failed, root=folder, home=home, server=prefect_server, key=UPDATE, before=before)

    assert artifacts(folder / "smoke") == artifacts(reference)


def test_a_file_that_may_not_grow(tmp_path, home, prefect_server, reference):
    """As a full disk, where nothing can be mounted: the system refuses files above a size."""
    limit = 700_000

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    failed = knowrl(*command(tmp_path), home=home, check=1, preexec_fn=limited, PREFECT_API_URL=prefect_server).stderr
    before = check_failed(failed, tmp_path, prefect_server, UPDATE, "File too large")
    assert len(before) == 5

    go_on(failed, root=tmp_path, home=home, server=prefect_server, key=UPDATE, before=before)

    assert artifacts(tmp_path / "smoke") == artifacts(reference)


def kill_worker_in(process, paths, key, times):
    """SIGKILL the model worker inside the stage, and each of its successors."""
    killed = set()
    deadline = time.monotonic() + 300
    inside = in_stage(paths, key)
    wait_for(inside, process=process, what=f"stage {key}")
    while len(killed) < times:
        worker = worker_of(process.pid)
        if worker is not None and worker.pid not in killed and inside():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
                killed.add(worker.pid)
        assert time.monotonic() < deadline, f"only {len(killed)} of {times} workers could be killed"
        time.sleep(0.01)


def test_a_worker_that_dies_is_tried_again(tmp_path, home, prefect_server, reference):
    process = start(
        *command(tmp_path, "--set=orchestration.retry_delay=0"),
        home=home,
        log=tmp_path / "log",
        PREFECT_API_URL=prefect_server,
    )
    paths = RunPaths(tmp_path, "smoke")
    kill_worker_in(process, paths, UPDATE, 1)

    assert process.wait(300) == 0
    assert f"warning: stage {UPDATE}: the model worker ended with signal 9" in (tmp_path / "log").read_text()
    assert artifacts(paths.folder) == artifacts(reference)
    (attempt,) = RunFile.read(paths).attempts
    flow, tasks = prefect_states(prefect_server, attempt)
    assert flow == "Completed"
    assert tasks["smoke/it001/update"] == ("Completed", 2)
    assert all(result == ("Completed", 1) for name, result in tasks.items() if name != "smoke/it001/update")


def test_a_worker_that_dies_again_and_again(tmp_path, home, prefect_server):
    process = start(
        *command(tmp_path, "--set=orchestration.retry_delay=0"),
        home=home,
        log=tmp_path / "log",
        PREFECT_API_URL=prefect_server,
    )
    paths = RunPaths(tmp_path, "smoke")
    kill_worker_in(process, paths, UPDATE, 2)

    assert process.wait(300) == 1
    text = (tmp_path / "log").read_text()
    check_failed(text, tmp_path, prefect_server, UPDATE, "signal 9", "out of memory", f"Log: {paths.logs}/worker.log")
    assert resume_command(text) == ["resume", "smoke", "--set", f"run.root={tmp_path}"]
