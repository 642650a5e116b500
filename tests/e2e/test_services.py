"""The services of docker-compose.yml, as processes: PostgreSQL behind both servers, and a worker."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.run_file import RunFile
from scripts.compose_file import read_env_file
from scripts.compose_local import REPOSITORY, LocalCompose
from scripts.new_env import new_env
from tests.e2e.helpers import in_stage, manifests, wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))),
        reason="PostgreSQL is not installed",
    ),
]
MEMORY = 1_500_000_000
"""Bytes that an idle deployment may hold."""


class Deployment:
    """A client of the services: the Prefect command line, and both APIs."""

    def __init__(self, services, folder):
        self.services, self.folder = services, folder
        self.environment = services.environment("worker")
        user, _, password = self.environment["PREFECT_API_AUTH_STRING"].partition(":")
        self.prefect = httpx.Client(base_url=self.environment["PREFECT_API_URL"], auth=(user, password), timeout=60)
        self.mlflow = httpx.Client(
            base_url=f"{self.environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow",
            auth=(user, self.environment["MLFLOW_TRACKING_PASSWORD"]),
            timeout=60,
        )

    def start(self, name, *arguments, deployment="knowrl/train", **config):
        small = {
            "run": {"root": str(self.folder), "iterations": 2},
            "introspection": {"calls_per_label": 3},
            "evaluation": {"probe_limit": 8, "frozen_limit": 6},
        }
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "prefect", "deployment", "run", deployment, "-p", f"run={name}"),
                *("-p", f"config={json.dumps({**small, **config})}", *arguments, "--watch"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )

    def do(self, name, **parameters):
        """A flow run of a deployment, to its good end."""
        given = [part for key, value in parameters.items() for part in ("-p", f"{key}={json.dumps(value)}")]
        command = [sys.executable, "-m", "prefect", "deployment", "run", f"knowrl/{name}", "--watch", *given]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    def states(self, run):
        """Of all flow runs with this run as their parameter, the oldest first; only then they get its name."""
        found = self.prefect.post("/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC"}).raise_for_status()
        return [item["state"]["name"] for item in found.json() if item["parameters"].get("run") == run]


@pytest.fixture(scope="module")
def deployment():
    # Not pytest's folder, which nobody but its owner may enter: under root PostgreSQL runs as a user of its own.
    folder = Path(tempfile.mkdtemp(prefix="knowrl-services-"))
    folder.chmod(0o711)
    env = folder / ".env"
    env.write_text(new_env((REPOSITORY / ".env.example").read_text()))
    often = {"PREFECT_WORKER_QUERY_SECONDS": "2"}
    with LocalCompose(folder / "state", read_env_file(env), free_ports=True, extra=often) as services:
        yield Deployment(services, folder / "runs")
    shutil.rmtree(folder)


def until(condition, what, timeout=180.0):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(0.5)
    return found


def ended(process, code=0, timeout=300):
    text, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, text
    return text


def test_idle_services_take_little_memory(deployment):
    held = deployment.services.memory()
    assert set(held) == {"postgres", "prefect", "mlflow", "worker"}
    assert sum(held.values()) < MEMORY, held


def test_nobody_comes_in_without_the_password(deployment):
    prefect, mlflow = str(deployment.prefect.base_url), str(deployment.mlflow.base_url)
    url = f"{mlflow}/experiments/search?max_results=1"
    assert httpx.post(f"{prefect}/flow_runs/filter", json={}).status_code == 401
    assert httpx.post(f"{prefect}/flow_runs/filter", json={}, auth=("knowrl", "")).status_code == 401
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=("admin", "password1234")).status_code == 401
    assert deployment.mlflow.get("/experiments/search?max_results=1").status_code == 200
    # DNS rebinding: a page of another site that reaches the port by a name of its own.
    assert (
        deployment.mlflow.get("/experiments/search?max_results=1", headers={"Host": "evil.example"}).status_code == 403
    )
    port = deployment.services.ports["postgres"]
    for password in ("", "postgres", "prefect"):
        reached = subprocess.run(
            ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "-d", "prefect", "-c", "select 1"],
            capture_output=True,
            check=False,
            env={**os.environ, "PGPASSWORD": password},
        )
        assert reached.returncode, "a guessed password was enough"


def test_servers_listen_on_loopback_only(deployment):
    for name, process in deployment.services.processes.items():
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for item in family:
            for connection in item.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == "127.0.0.1", name


def test_two_runs_on_one_slot_queue_and_compare_in_mlflow(deployment):
    first = deployment.start("first", "-p", "profile=smoke")
    until(lambda: deployment.states("first") == ["Running"], "the first run")
    second = deployment.start("second", "-p", "profile=smoke", rl={"kl_coef": 0.01})
    seen = set()
    while first.poll() is None:
        states = deployment.states("first"), deployment.states("second")
        if states[0] == ["Running"]:
            seen.update(states[1])
        time.sleep(0.3)
    ended(first)
    ended(second)

    assert seen
    assert seen <= {"Scheduled", "Late"}, "it did not wait for the slot"
    assert deployment.states("first") == deployment.states("second") == ["Completed"]
    [experiment] = [
        item
        for item in deployment.mlflow.get("/experiments/search?max_results=100").json()["experiments"]
        if item["name"] == "knowrl"
    ]
    query = {"experiment_ids": [experiment["experiment_id"]], "max_results": 100}
    runs = deployment.mlflow.post("/runs/search", json=query).raise_for_status().json()["runs"]
    names = sorted(run["info"]["run_name"] for run in runs)
    assert len(names) == 2 * (1 + 3)
    compared = [run for run in runs if run["info"]["run_name"] not in ("first", "second")]
    for run in compared:
        metrics = {item["key"] for item in run["data"]["metrics"]}
        assert {"evaluate/probe/balanced_accuracy", "evaluate/probe/f1", "at_a_glance/f1"} <= metrics, run["info"][
            "run_name"
        ]


def test_a_run_that_dies_with_its_worker_is_crashed_and_goes_on(deployment):
    paths, key = RunPaths(deployment.folder, "killed"), StageKey(2, "update")
    watching = deployment.start("killed", "-p", "profile=smoke")
    wait_for(in_stage(paths, key), process=watching, what=str(key))
    worker = deployment.services.processes["worker"]
    flow = psutil.Process(RunFile.read(paths).attempts[-1].pid)
    started = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    for process in started:
        process.send_signal(signal.SIGSTOP)  # so that none of them can tell the server of the other's end
    for process in started:
        process.kill()
    worker.wait()
    assert flow in started, "the flow's process is none of the worker's"
    _, alive = psutil.wait_procs(started[1:], timeout=30)
    assert not alive
    before = manifests(paths.folder)
    assert f"iterations/{key}" not in before
    assert deployment.states("killed") == ["Running"]

    # Nobody is left to say it: the server misses the heartbeats.
    until(lambda: deployment.states("killed") == ["Crashed"], "state Crashed", timeout=240)
    watching.communicate(timeout=120)
    assert watching.returncode == 1
    deployment.services.start("worker")
    ended(deployment.start("killed"))

    assert deployment.states("killed") == ["Crashed", "Completed"]
    assert [(item.first_stage, item.outcome) for item in RunFile.read(paths).attempts] == [
        ("000/generate", "killed"),
        (str(key), "completed"),
    ]
    after = manifests(paths.folder)
    assert {name: after[name] for name in before} == before


def test_a_relay_does_stages_in_two_pools(deployment):
    """A run whose consensus is done by the CPU pool's worker, and all else by the GPU pool's."""
    others = []
    for pool in ("knowrl-gpu", "knowrl-control"):
        with deployment.services.log(pool).open("wb") as log:
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
            environment = {**deployment.environment, "PREFECT_WORKER_QUERY_SECONDS": "2"}
            others.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
    try:
        ended(deployment.start("relayed", "-p", "profile=smoke", deployment="knowrl/relay"))
    finally:
        for process in others:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    paths = RunPaths(deployment.folder, "relayed")
    attempts = RunFile.read(paths).attempts
    assert [(item.first_stage, item.outcome) for item in attempts] == [
        ("000/generate", "completed"),
        ("001/consensus", "completed"),
        ("001/update", "completed"),
        ("002/consensus", "completed"),
        ("002/update", "completed"),
    ]
    pools = {
        item["id"]: item["work_pool_name"]
        for item in deployment.prefect.post("/flow_runs/filter", json={}).raise_for_status().json()
    }
    assert [pools[item.prefect_flow_run] for item in attempts] == [
        "knowrl-gpu",
        "knowrl",
        "knowrl-gpu",
        "knowrl",
        "knowrl-gpu",
    ]
    assert f"iterations/{StageKey(2, 'evaluate')}" in manifests(paths.folder)


def test_evaluate_and_study_are_deployed(deployment, tmp_path):
    deployment.do("evaluate", limit=8, model="tiny-random", profile="smoke", out=str(tmp_path / "out.parquet"))
    assert (tmp_path / "out.parquet").stat().st_size
    files = []
    for name, coefficient in (("a", 0.001), ("b", 0.01)):
        document = yaml.safe_load((REPOSITORY / "configs" / "smoke.yaml").read_text())
        document["run"] |= {"name": f"study-{name}", "root": str(deployment.folder), "iterations": 1}
        document["rl"] = document.get("rl", {}) | {"kl_coef": coefficient}
        files.append(str(tmp_path / f"{name}.yaml"))
        Path(files[-1]).write_text(yaml.safe_dump(document))
    deployment.do("study", files=files)
    record = RunFile.read(RunPaths(deployment.folder, "study-b"))
    assert record.forked_from.run == "study-a"
    assert record.forked_from.at == "001/update"
