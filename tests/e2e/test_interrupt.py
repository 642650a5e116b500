"""Control-C, SIGTERM and the death of the process alone: nothing is left behind, and the printed command goes on."""

import os
import signal
import time

import psutil
import pytest

from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.run_file import RunFile
from tests.e2e.helpers import (
    TINY,
    artifacts,
    belonging,
    in_stage,
    knowrl,
    manifests,
    resume_command,
    start,
    wait_for,
    worker_of,
)
from tests.e2e.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
UPDATE = StageKey(1, "update")


@pytest.fixture(scope="module")
def own_home(tmp_path_factory):
    """A Prefect home for ephemeral servers; its database is made once."""
    return tmp_path_factory.mktemp("ephemeral")


def started(root, home, **environment):
    """A run that is inside its update."""
    process = start(
        "run",
        "--config=smoke",
        f"--set=run.root={root}",
        "--set=run.iterations=1",
        *TINY,
        home=home,
        log=root / "log",
        **environment,
    )
    wait_for(in_stage(RunPaths(root, "smoke"), UPDATE), process=process, what=f"stage {UPDATE}")
    return process


def control_c(process):
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole foreground group


def control_c_twice(process):
    control_c(process)
    time.sleep(0.2)
    control_c(process)


def sigterm(process):
    process.terminate()


@pytest.mark.parametrize(
    ("stop", "ephemeral"), [(control_c, True), (sigterm, False), (control_c_twice, False)], ids=lambda value: None
)
def test_interrupted(*, tmp_path, home, own_home, prefect_server, reference, stop, ephemeral):
    server = {} if ephemeral else {"PREFECT_API_URL": prefect_server}
    process = started(tmp_path, own_home if ephemeral else home, **server)
    assert len(belonging(process.pid)) == 1 + ephemeral

    stop(process)

    code, text = process.wait(60), (tmp_path / "log").read_text()
    assert code == 130, text
    assert "interrupted; what is committed stands" in text
    assert "Traceback" not in text
    assert "rror" not in text
    assert not belonging(process.pid), "a child process was left behind"
    paths = RunPaths(tmp_path, "smoke")
    attempt = RunFile.read(paths).attempts[-1]
    assert (attempt.outcome, attempt.error) == ("interrupted", None)
    assert attempt.ended
    before = manifests(paths.folder)
    assert len(before) == 5

    done = knowrl(*resume_command(text), home=home, check=0, PREFECT_API_URL=prefect_server)

    assert f"resuming at {UPDATE}" in done.stderr
    assert artifacts(paths.folder) == artifacts(reference)
    after = manifests(paths.folder)
    assert {name: after[name] for name in before} == before
    assert [attempt.outcome for attempt in RunFile.read(paths).attempts] == ["interrupted", "completed"]
    assert not list(paths.folder.rglob("*.partial"))


def test_a_server_that_fails_meanwhile_makes_no_error_of_it(tmp_path):
    """Prefect reports the interruption to its server; that this fails must not be taken for the reason of the end."""
    server = Server("prefect", tmp_path / "server")
    server.start()
    process = started(tmp_path, tmp_path / "server", PREFECT_API_URL=server.url, PREFECT_CLIENT_MAX_RETRIES="0")
    server.kill()

    sigterm(process)

    code, text = process.wait(120), (tmp_path / "log").read_text()
    assert code == 130, text
    assert "interrupted; what is committed stands" in text
    assert "Traceback" not in text
    assert RunFile.read(RunPaths(tmp_path, "smoke")).attempts[-1].outcome == "interrupted"


def test_killed_alone_with_an_ephemeral_server(tmp_path, own_home, reference):
    """kill -9 of the command only: the model worker goes with it, its server is ended by the next start."""
    process = started(tmp_path, own_home)
    worker = worker_of(process.pid)
    (server,) = (item for item in belonging(process.pid) if item != worker)

    process.kill()
    process.wait()

    worker.wait(10)
    assert server.is_running(), "nothing to show: the server ended by itself"
    knowrl("resume", "smoke", f"--set=run.root={tmp_path}", home=own_home, check=0)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    assert not belonging(process.pid)
    folder = tmp_path / "smoke"
    assert artifacts(folder) == artifacts(reference)
    assert [attempt.outcome for attempt in RunFile.read(RunPaths(tmp_path, "smoke")).attempts] == [
        "killed",
        "completed",
    ]
