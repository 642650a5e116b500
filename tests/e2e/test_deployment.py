"""The deployment on a real server with a process worker: start, refuse, crash, resume, retry."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deployment import AUTOMATION
from flows.relay import say_if_unserved
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.run_file import RunFile
from tests.e2e.helpers import environment_of, in_stage, knowrl, manifests, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
PREFECT = [sys.executable, "-m", "prefect"]
ITERATIONS = 2


class Deployment:
    """The server's API, the command line, and the worker's log."""

    def __init__(self, url, env, log):
        self.env, self.log = env, log
        self.api = httpx.Client(base_url=url, timeout=30)

    def prefect(self, *arguments):
        return subprocess.run(
            [*PREFECT, *arguments], capture_output=True, check=False, text=True, timeout=300, env=self.env
        )

    def start(self, *arguments):
        return subprocess.Popen(
            [*PREFECT, "deployment", "run", "knowrl/train", *arguments, "--watch"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.env,
        )

    def start_worker(self):
        with self.log.open("ab") as out:
            self.worker = subprocess.Popen(
                [*PREFECT, "worker", "start", "--pool", "knowrl", "--type", "process"],
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self.log.parent,
                env=self.env,
            )

    def run(self, *arguments):
        return self.prefect("deployment", "run", "knowrl/train", *arguments, "--watch")

    def flow_runs(self, name=None):
        """All flow runs (of a name), the oldest first."""
        condition = {"flow_runs": {"name": {"any_": [name]}}} if name else {}
        answer = self.api.post("/flow_runs/filter", json={**condition, "sort": "EXPECTED_START_TIME_ASC"})
        return answer.raise_for_status().json()

    def logs(self, flow_run_id):
        answer = self.api.post("/logs/filter", json={"logs": {"flow_run_id": {"any_": [flow_run_id]}}})
        return [line["message"] for line in answer.raise_for_status().json()]

    def task_runs(self, flow_run_id):
        answer = self.api.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [flow_run_id]}}})
        return {item["name"]: item["state"]["name"] for item in answer.raise_for_status().json()}


@pytest.fixture(scope="module")
def deployment(home, prefect_server, tmp_path_factory):
    """What docs/deploy.md says: ``knowrl deploy``, and a worker."""
    folder = tmp_path_factory.mktemp("worker")
    env = environment_of(home, PREFECT_API_URL=prefect_server, PREFECT_WORKER_QUERY_SECONDS="1")
    env["KNOWRL_ALLOW"] = f"path={tmp_path_factory.getbasetemp()}"
    for _ in range(2):  # the same call twice changes nothing
        done = knowrl("deploy", home=home, check=0, PREFECT_API_URL=prefect_server)
    assert "Deployment 'knowrl/train' successfully" in done.stderr
    assert "work pool knowrl has no live worker" in done.stderr
    deployment = Deployment(prefect_server, env, folder / "log")
    deployment.start_worker()
    try:
        yield deployment
    finally:
        os.killpg(deployment.worker.pid, signal.SIGKILL)  # asked to end, Prefect's worker sometimes stays for minutes
        deployment.worker.wait()


def small(root, **more):
    """The ``config`` parameter: a few tasks only."""
    return "config=" + json.dumps(
        {
            "run": {"root": str(root), "iterations": ITERATIONS},
            "introspection": {"calls_per_label": 3},
            "evaluation": {"probe_limit": 8, "frozen_limit": 6},
            **more,
        }
    )


def attempts(paths):
    return [(item.first_stage, item.outcome) for item in RunFile.read(paths).attempts]


def test_parameters_are_described_with_their_bounds(deployment):
    schema = deployment.api.get("/deployments/name/knowrl/train").raise_for_status().json()["parameter_openapi_schema"]
    assert all(item["description"] for item in schema["properties"].values())
    clip = schema["definitions"]["RLConfig"]["properties"]["clip"]
    assert clip["description"].startswith("PPO clip")
    assert (clip["exclusiveMinimum"], clip["exclusiveMaximum"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("parameter", "named"),
    [
        ('config={"rl": {"clip": 7}}', "config.rl.clip"),
        ('config={"rl": {"clipp": 0.1}}', "clipp"),
        ('config={"run": {"iterations": "three"}}', "config.run.iterations"),
        ("run=../x", "run"),
        ("fork=../x@1/update", "fork"),
        ("fork=first", "fork"),
        ("confg={}", "confg"),
    ],
)
def test_a_wrong_parameter_is_refused_before_scheduling(deployment, parameter, named):
    before = len(deployment.flow_runs())
    done = deployment.run("--param", "profile=smoke", "--param", parameter)
    assert done.returncode == 1
    assert named in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len(deployment.flow_runs()) == before


def test_an_unknown_profile_fails_with_the_reason_in_the_state(deployment):
    done = deployment.run("-p", "profile=nope")
    assert done.returncode == 1
    [flow_run] = deployment.flow_runs("nope")
    assert flow_run["state"]["name"] == "Failed"
    assert "unknown profile 'nope'" in flow_run["state"]["message"]


def test_a_killed_flow_run_is_crashed_and_its_run_goes_on(deployment, tmp_path):
    paths, key = RunPaths(tmp_path, "killed"), StageKey(2, "update")
    process = deployment.start("-p", "profile=smoke", "-p", "run=killed", "-p", small(tmp_path))
    wait_for(in_stage(paths, key), process=process, what=str(key))
    os.kill(RunFile.read(paths).attempts[-1].pid, signal.SIGKILL)
    assert process.wait(120) == 1
    [crashed] = deployment.flow_runs("killed")
    assert crashed["state"]["name"] == "Crashed"
    before = manifests(paths.folder)
    assert f"iterations/{key}" not in before

    # Neither profile nor config again: the run keeps what it was started with.
    done = deployment.run("-p", "run=killed", "-p", "config=" + json.dumps({"run": {"root": str(tmp_path)}}))

    assert done.returncode == 0, done.stdout + done.stderr
    flow_run = deployment.flow_runs("killed")[-1]
    assert flow_run["state"]["name"] == "Completed"
    assert attempts(paths) == [("000/generate", "killed"), (str(key), "completed")]
    after = manifests(paths.folder)
    assert {name: after[name] for name in before} == before
    assert deployment.task_runs(flow_run["id"]) == {
        "killed/it002/update": "Completed",
        "killed/it002/evaluate": "Completed",
    }
    lines = deployment.logs(flow_run["id"])
    assert any(line.startswith("resuming at 002/update: 10 of 12 stages") for line in lines)
    assert sum(line.startswith(("002/update: ", "002/evaluate: ")) for line in lines) == 2
    root = json.dumps({"run": {"root": str(tmp_path)}, "rl": {"kl_coef": 0.1}})
    for _ in range(2):  # the second time it is there, and done
        forked = deployment.run("-p", "run=forked", "-p", "fork=killed@2/update", "-p", f"config={root}")
        assert forked.returncode == 0, forked.stdout + forked.stderr
    record = RunFile.read(RunPaths(tmp_path, "forked"))
    assert (record.forked_from.run, record.forked_from.at) == ("killed", str(key))
    assert (record.config["rl"]["kl_coef"], record.config["run"]["iterations"]) == (0.1, ITERATIONS)
    shared, own = (f"iterations/002/{stage}" for stage in ("consensus", "update"))
    found = manifests(RunPaths(tmp_path, "forked").folder)
    assert found[shared] == after[shared]
    assert found[own] != after[own]
    noise = [line for line in deployment.log.read_text().splitlines() if "mlflow" in line or "alembic" in line]
    assert noise == []


def test_a_killed_worker_takes_its_flow_run_along_and_the_run_goes_on(deployment, tmp_path):
    """The worker's process alone is killed; nobody touches the one that does the flow run."""
    paths, key = RunPaths(tmp_path, "orphan"), StageKey(2, "generate")
    process = deployment.start("-p", "profile=smoke", "-p", "run=orphan", "-p", small(tmp_path))
    wait_for(in_stage(paths, key), process=process, what=str(key))
    deployment.worker.kill()
    deployment.worker.wait()
    assert process.wait(120) == 1
    [crashed] = deployment.flow_runs("orphan")
    assert crashed["state"]["name"] == "Crashed"
    before = manifests(paths.folder)

    deployment.start_worker()
    done = deployment.run("-p", "run=orphan", "-p", "config=" + json.dumps({"run": {"root": str(tmp_path)}}))

    assert done.returncode == 0, done.stdout + done.stderr
    [(first, outcome), (went_on, completed)] = attempts(paths)
    assert (first, outcome, completed) == ("000/generate", "interrupted", "completed")
    assert StageKey.parse(went_on).iteration == 2
    after = manifests(paths.folder)
    assert {name: after[name] for name in before} == before


def test_retry_goes_on_at_the_failed_stage(deployment, tmp_path):
    paths, key = RunPaths(tmp_path, "retried"), StageKey(2, "generate")
    obstacle = paths.stage(key).parent
    process = deployment.start(
        *("-p", "profile=smoke", "-p", "run=retried", "-p", small(tmp_path, tracking={"enabled": False}))
    )
    wait_for(in_stage(paths, StageKey(0, "generate")), process=process, what="the first stage")
    obstacle.write_text("a file where a folder has to be")
    assert process.wait(120) == 1
    [flow_run] = deployment.flow_runs("retried")
    assert flow_run["state"]["name"] == "Failed"
    assert str(obstacle) in flow_run["state"]["message"]
    before = manifests(paths.folder)

    obstacle.unlink()
    done = deployment.prefect("flow-run", "retry", flow_run["id"])

    assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + 120
    while (state := deployment.flow_runs("retried")[0]["state"])["name"] != "Completed":
        assert time.monotonic() < deadline, state
        time.sleep(0.5)
    assert attempts(paths) == [("000/generate", "failed"), (str(key), "completed")]
    after = manifests(paths.folder)
    assert {name: after[name] for name in before} == before


def test_deploy_says_what_is_missing(home):
    done = knowrl("deploy", home=home, check=2)
    assert "PREFECT_API_URL" in done.stderr
    done = knowrl(
        "deploy", home=home, check=2, PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES="0"
    )
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pool_without_a_worker_is_named(deployment, home, prefect_server, monkeypatch):
    """By `knowrl deploy`, and by a relay before it waits for one."""
    done = knowrl("deploy", home=home, check=0, PREFECT_API_URL=prefect_server)
    assert "work pool knowrl has no live worker" not in done.stderr
    assert "prefect worker start --pool knowrl-control --type process" in done.stderr
    said = []
    monkeypatch.setattr("flows.relay.current_reporter", lambda: SimpleNamespace(warning=said.append))
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        say_if_unserved("knowrl/train")
        say_if_unserved("knowrl/train-gpu")
    assert len(said) == 1
    assert "work pool knowrl-gpu has no live worker" in said[0]


def test_slots_are_changed(deployment, home, prefect_server):
    knowrl("deploy", "--slots=3", home=home, check=0, PREFECT_API_URL=prefect_server)
    assert deployment.api.get("/work_pools/knowrl").json()["concurrency_limit"] == 3
    knowrl("deploy", home=home, check=0, PREFECT_API_URL=prefect_server)
    assert deployment.api.get("/work_pools/knowrl").json()["concurrency_limit"] == 1
    found = deployment.api.post("/automations/filter", json={}).json()
    assert [item["name"] for item in found if item["name"].startswith("KnowRL")] == [AUTOMATION]
