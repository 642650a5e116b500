"""The model worker: a real child process with the tiny model."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from knowrl_core.config import EngineConfig
from knowrl_core.engines import ChooseRequest, GenerateRequest, Turn, build_engine
from knowrl_core.errors import StageError, WorkerDiedError
from knowrl_core.models.load import setup_torch
from knowrl_core.worker import EngineSpec, ModelWorker

ENGINE = EngineConfig(dtype="fp32", threads=1)
TURNS = (Turn(role="user", content="Say a few words."),)
GENERATE = [GenerateRequest(turns=TURNS, n=2, seed=seed, max_new_tokens=6) for seed in range(3)]
CHOOSE = [ChooseRequest(turns=TURNS, choices=("feasible", "infeasible"))]


@pytest.fixture(scope="module")
def spec(tiny_path):
    return EngineSpec(folder=tiny_path, policy="tiny", device="cpu", engine=ENGINE)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    found = ModelWorker(tmp_path_factory.mktemp("worker") / "worker.log", timeout=120)
    yield found
    found.close()


def pid(worker):
    return worker._process.pid


def test_it_answers_as_the_engine_in_this_process_does(worker, spec):
    setup_torch(1)
    here = build_engine(ENGINE, spec.folder, device="cpu")
    there = worker.engine(spec)
    assert there.name == here.name == "transformers/fp32"
    assert list(there.generate(GENERATE)) == list(here.generate(GENERATE))
    assert list(there.choose(CHOOSE)) == list(here.choose(CHOOSE))


def test_one_process_serves_many_requests(worker, spec):
    list(worker.engine(spec).choose(CHOOSE))
    first = pid(worker)
    list(worker.engine(spec).generate(GENERATE))
    assert pid(worker) == first


def test_an_error_of_the_model_reaches_the_caller_and_the_worker_lives(worker, spec):
    list(worker.engine(spec).choose(CHOOSE))
    first = pid(worker)
    too_long = [GenerateRequest(turns=TURNS, seed=0, max_new_tokens=100_000)]
    with pytest.raises(StageError, match="max_new_tokens"):
        list(worker.engine(spec).generate(too_long))
    assert len(list(worker.engine(spec).choose(CHOOSE))) == 1
    assert psutil.pid_exists(first)


def test_an_answer_that_is_left_does_not_mix_with_the_next(worker, spec):
    answers = worker.engine(spec).generate(GENERATE)
    next(answers)
    answers.close()
    assert len(list(worker.engine(spec).choose(CHOOSE))) == 1


def test_a_killed_worker_is_an_error_that_says_so_and_the_next_request_starts_another(worker, spec):
    list(worker.engine(spec).choose(CHOOSE))
    os.kill(pid(worker), signal.SIGSTOP)  # it takes the request and cannot answer
    killer = threading.Timer(0.5, os.kill, (pid(worker), signal.SIGKILL))
    killer.start()
    with pytest.raises(WorkerDiedError, match="signal 9") as caught:
        list(worker.engine(spec).choose(CHOOSE))
    assert "worker.log" in str(caught.value)
    assert len(list(worker.engine(spec).choose(CHOOSE))) == 1


def test_it_may_not_take_longer_than_it_is_given(tmp_path, spec):
    hasty = ModelWorker(tmp_path / "worker.log", timeout=0.05)
    with pytest.raises(StageError, match="did not finish within"):
        list(hasty.engine(spec).choose(CHOOSE))
    hasty.close()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_it_dies_with_its_parent(tmp_path):
    code = (
        "import pathlib, sys, time\n"
        "from knowrl_core.worker import ModelWorker\n"
        "worker = ModelWorker(pathlib.Path(sys.argv[1]))\n"
        "worker.start()\n"
        "print(worker._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)
