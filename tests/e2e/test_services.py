"""The services of docker-compose.yml, as processes: PostgreSQL behind both servers, and a worker for each pool.

The long part is one course of events, in which waiting for one thing is the time for the next (``course``).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from knowrl_core.config.machine import MACHINE_FIELDS
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.run_file import RunFile
from scripts.compose_file import read_env_file
from scripts.compose_local import REPOSITORY, LocalCompose, program
from scripts.new_env import new_env
from tests.e2e.helpers import in_stage, manifests, wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))
        and not os.environ.get("KNOWRL_REQUIRE_SERVICES"),
        reason="PostgreSQL is not installed; with KNOWRL_REQUIRE_SERVICES=1 that is a failure",
    ),
]
MEMORY = 1_500_000_000
"""Bytes that an idle deployment may hold."""


IDLE = {"postgres", "prefect", "mlflow", "worker"}
"""What `make up` starts and keeps."""
PUBLIC = {
    "PUBLIC_PREFECT_URL": "https://prefect.example.org",
    "PUBLIC_MLFLOW_URL": "https://mlflow.example.org",
    "PUBLIC_MLFLOW_HOST": "mlflow.example.org",
}


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

    def call(self, name, *arguments, **parameters):
        """Start a flow run of a deployment."""
        given = [part for key, value in parameters.items() for part in ("-p", f"{key}={json.dumps(value)}")]
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", "deployment", "run", f"knowrl/{name}", *given, *arguments, "--watch"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )

    def start(self, run, deployment="train", profile="smoke", **config):
        """Start a short run."""
        small = {
            "run": {"root": str(self.folder), "iterations": 1},
            "introspection": {"calls_per_label": 3},
            "evaluation": {"probe_limit": 8, "frozen_limit": 6},
        }
        return self.call(deployment, run=run, config={**small, **config}, **({"profile": profile} if profile else {}))

    def flow_runs(self):
        """All flow runs, the oldest first."""
        answer = self.prefect.post("/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC"})
        return answer.raise_for_status().json()

    def states(self, run, pool="knowrl"):
        """Of all flow runs in a pool with this run as their parameter; only when they start they get its name."""
        found = [item for item in self.flow_runs() if item["work_pool_name"] == pool]
        return [item["state"]["name"] for item in found if item["parameters"].get("run") == run]


@pytest.fixture(scope="module")
def deployment():
    # Not pytest's folder, which nobody but its owner may enter: under root PostgreSQL runs as a user of its own.
    folder = Path(tempfile.mkdtemp(prefix="knowrl-services-"))
    folder.chmod(0o711)
    env = folder / ".env"
    env.write_text(new_env((REPOSITORY / ".env.example").read_text()))
    variables = read_env_file(env) | PUBLIC | {"KNOWRL_ALLOW": f"path={folder}"}
    often = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    others = ["worker-control", "worker-gpu"]
    with LocalCompose(folder / "state", variables, also=others, free_ports=True, extra=often) as services:
        yield Deployment(services, folder / "runs")
    shutil.rmtree(folder)


def until(condition, what, timeout=600.0):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(0.3)
    return found


def ended(process, code=0, timeout=900):
    text, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, text
    return text


def test_idle_services_take_little_memory(deployment):
    held = {name: size for name, size in deployment.services.memory().items() if name in IDLE}
    assert set(held) == IDLE
    assert sum(held.values()) < MEMORY, held


def test_nobody_comes_in_without_the_password(deployment):
    prefect, mlflow = str(deployment.prefect.base_url), str(deployment.mlflow.base_url)
    url = f"{mlflow}/experiments/search?max_results=1"
    assert httpx.post(f"{prefect}/flow_runs/filter", json={}).status_code == 401
    assert httpx.post(f"{prefect}/flow_runs/filter", json={}, auth=("knowrl", "")).status_code == 401
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=("admin", "password1234")).status_code == 401
    port, socket = deployment.services.ports["postgres"], deployment.services.state / "run"
    assert socket.stat().st_mode & 0o077 == 0, "others reach the socket"
    for host in ("127.0.0.1", str(socket)):
        for user, database in (("prefect", "prefect"), ("postgres", "postgres")):
            for password in ("", "postgres", "prefect"):
                reached = subprocess.run(
                    [program("psql"), "-w", "-h", host, "-p", str(port), "-U", user, "-d", database, "-c", "select 1"],
                    capture_output=True,
                    text=True,
                    check=False,
                    env={**os.environ, "PGPASSWORD": password},
                )
                assert reached.returncode, f"{user} came in by {host} with a guessed password"
                assert "password" in reached.stderr


def test_behind_a_proxy_with_tls(deployment):
    """The names and origins that browsers send are known, and no others."""
    page = deployment.mlflow.get
    for host in ("mlflow.example.org", "mlflow.example.org:443"):
        assert page("/experiments/search?max_results=1", headers={"Host": host}).status_code == 200
    # DNS rebinding: a page of another site that reaches the port by a name of its own.
    assert page("/experiments/search?max_results=1", headers={"Host": "evil.example"}).status_code == 403
    for origin, code in (("https://mlflow.example.org", 200), ("https://evil.example", 403)):
        answer = deployment.mlflow.post("/experiments/search", json={"max_results": 1}, headers={"Origin": origin})
        assert answer.status_code == code, origin
    settings = deployment.prefect.get(str(deployment.prefect.base_url).replace("/api/", "/ui-settings"))
    assert settings.json()["api_url"] == "https://prefect.example.org/api"


def test_servers_listen_on_loopback_only(deployment):
    for name, process in deployment.services.processes.items():
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for item in family:
            for connection in item.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == "127.0.0.1", name


class Watch(threading.Thread):
    """Looks at both pools all the time: how many flow runs hold a slot, and whether others wait meanwhile."""

    def __init__(self, deployment):
        super().__init__(daemon=True)
        self.most = dict.fromkeys(("knowrl", "knowrl-gpu"), 0)
        self.queued = set()
        self.ended = threading.Event()
        self._deployment = deployment

    def run(self):
        while not self.ended.wait(0.5):
            found = self._deployment.flow_runs()
            for pool in self.most:
                states = [item["state"]["name"] for item in found if item["work_pool_name"] == pool]
                active = sum(state in ("Running", "Pending") for state in states)
                self.most[pool] = max(self.most[pool], active)
                if active and any(state in ("Scheduled", "Late") for state in states):
                    self.queued.add(pool)


@dataclass
class Course:
    """What was seen."""

    watch: Watch
    before: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    variables: str = ""
    program: bool = True


@pytest.fixture(scope="module")
def course(deployment):
    """A run dies with the CPU pool's worker while others wait; the GPU pool works until the server finds out."""
    seen = Course(Watch(deployment))
    paths, key = RunPaths(deployment.folder, "killed"), StageKey(1, "update")
    killed = deployment.start("killed")
    until(lambda: deployment.states("killed") == ["Running"], "the first run")
    seen.watch.start()
    evaluation = {"model": "tiny-random", "profile": "smoke", "limit": 8, "out": str(deployment.folder / "out.parquet")}
    others = [
        deployment.start("second", rl={"kl_coef": 0.01}),
        deployment.start("third", "train-gpu"),
        deployment.call("evaluate-gpu", **evaluation),
        deployment.start("relayed", "relay"),
    ]
    wait_for(in_stage(paths, key), process=killed, what=str(key))
    kill_worker(deployment, RunFile.read(paths).attempts[-1].pid)
    seen.before = manifests(paths.folder)
    assert f"iterations/{key}" not in seen.before
    assert deployment.states("killed") == ["Running"]

    hostile, marker = deployment.folder / "python", deployment.folder / "executed"
    hostile.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hostile.chmod(0o755)
    foreign = {
        "engine": {"kind": "vllm", "vllm": {"python": str(hostile), "args": ["--x"], "urls": ["http://127.0.0.1:9"]}},
        "rl": {"deepspeed": {"hostfile": str(hostile), "config": str(hostile)}},
        "tracking": {"uri": "http://127.0.0.1:9"},
    }
    seen.variables = ended(deployment.call("train-gpu", "--job-variable", "env.KNOWRL_ALLOW=*", run="no"), code=1)
    ended(deployment.start("foreign", "train-gpu", **foreign), code=1)
    [flow_run] = [item for item in deployment.flow_runs() if item["parameters"].get("run") == "foreign"]
    seen.refused, seen.program = flow_run["state"]["message"], marker.exists()

    # Nobody is left to say it: the server misses the heartbeats.
    until(lambda: deployment.states("killed") == ["Crashed"], "state Crashed")
    ended(killed, code=1)
    deployment.services.start("worker")
    for process in (*others, deployment.start("killed", profile=None)):
        ended(process)
    seen.watch.ended.set()
    return seen


def kill_worker(deployment, flow):
    """Kill the CPU pool's worker and the flow run's process at the same moment."""
    worker = deployment.services.processes["worker"]
    started = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    for process in started:
        process.send_signal(signal.SIGSTOP)  # so that none of them can tell the server of the other's end
    for process in started:
        process.kill()
    worker.wait()
    assert flow in [process.pid for process in started], "the flow's process is none of the worker's"
    _, alive = psutil.wait_procs(started[1:], timeout=30)
    assert not alive


def test_each_pool_has_one_slot_and_others_wait(course, deployment):
    assert course.watch.most == {"knowrl": 1, "knowrl-gpu": 1}
    assert course.watch.queued == {"knowrl", "knowrl-gpu"}
    assert deployment.states("second") == ["Completed"], "a flow run that crashed kept its slot"


def test_runs_compare_in_mlflow(course, deployment):
    found = deployment.mlflow.get("/experiments/search?max_results=100").json()["experiments"]
    [experiment] = [item for item in found if item["name"] == "knowrl"]
    query = {"experiment_ids": [experiment["experiment_id"]], "max_results": 100}
    runs = deployment.mlflow.post("/runs/search", json=query).raise_for_status().json()["runs"]
    names = sorted(run["info"]["run_name"] for run in runs)
    whole = {"killed", "second", "third", "relayed"}
    assert len(names) == len(whole) * (1 + 2)
    for run in runs:
        if run["info"]["run_name"] not in whole:
            metrics = {item["key"] for item in run["data"]["metrics"]}
            wanted = {"evaluate/probe/balanced_accuracy", "evaluate/probe/f1", "at_a_glance/f1"}
            assert wanted <= metrics, run["info"]["run_name"]


def test_a_run_that_dies_with_its_worker_is_crashed_and_goes_on(course, deployment):
    paths, key = RunPaths(deployment.folder, "killed"), StageKey(1, "update")
    assert deployment.states("killed") == ["Crashed", "Completed"]
    assert [(item.first_stage, item.outcome) for item in RunFile.read(paths).attempts] == [
        ("000/generate", "killed"),
        (str(key), "completed"),
    ]
    after = manifests(paths.folder)
    assert {name: after[name] for name in course.before} == course.before


@pytest.mark.usefixtures("course")
def test_a_relay_does_stages_in_two_pools(deployment):
    """A run whose consensus is done by the CPU pool's worker, and all else by the GPU pool's."""
    paths = RunPaths(deployment.folder, "relayed")
    attempts = RunFile.read(paths).attempts
    assert [(item.first_stage, item.outcome) for item in attempts] == [
        ("000/generate", "completed"),
        ("001/consensus", "completed"),
        ("001/update", "completed"),
    ]
    pools = {item["id"]: item["work_pool_name"] for item in deployment.flow_runs()}
    assert [pools[item.prefect_flow_run] for item in attempts] == ["knowrl-gpu", "knowrl", "knowrl-gpu"]
    assert f"iterations/{StageKey(1, 'evaluate')}" in manifests(paths.folder)


def test_parameters_choose_no_programs_hosts_and_destinations(course):
    """tests/unit/flows/test_remote.py has each of them, and the places."""
    assert [name for name in MACHINE_FIELDS if f"{name}: got" not in course.refused] == []
    assert not course.program
    assert "env" in course.variables, "a flow run brings an environment of its own"


@pytest.mark.usefixtures("course")
def test_evaluate_and_study_are_deployed(deployment):
    assert (deployment.folder / "out.parquet").stat().st_size
    files = []
    for name, coefficient in (("a", 0.001), ("b", 0.01)):
        document = yaml.safe_load((REPOSITORY / "configs" / "smoke.yaml").read_text())
        document["run"] |= {"name": f"study-{name}", "root": str(deployment.folder), "iterations": 1}
        document["rl"] = document.get("rl", {}) | {"kl_coef": coefficient}
        files.append(str(deployment.folder / f"{name}.yaml"))
        Path(files[-1]).write_text(yaml.safe_dump(document))
    ended(deployment.call("study", files=files))
    record = RunFile.read(RunPaths(deployment.folder, "study-b"))
    assert record.forked_from.run == "study-a"
    assert record.forked_from.at == "001/update"
