"""Shards over several model workers: real child processes with the tiny model."""

import os
import signal
import threading
import time

import pytest

from knowrl_core.config import EngineConfig, load_config
from knowrl_core.engines import ChooseRequest, GenerateRequest, Turn
from knowrl_core.errors import StageError, WorkerDiedError
from knowrl_core.worker import EngineSpec, WorkerPool


def turns(number):
    return (Turn(role="user", content=f"Say {'something ' * (number % 4)}about {number}."),)


GENERATE = [GenerateRequest(turns=turns(i), n=3, seed=i, max_new_tokens=4 + i) for i in range(11)]
CHOOSE = [ChooseRequest(turns=turns(i), choices=("feasible", "infeasible")) for i in range(11)]


@pytest.fixture
def make(tmp_path, tiny_path):
    pools = []

    def build(workers, shard):
        pool = WorkerPool(tmp_path / f"{workers}.log", workers=workers, shard=shard, timeout=120)
        pools.append(pool)
        engine = EngineConfig(dtype="fp32", threads=1, workers=workers, shard=shard)
        return pool, pool.engine(EngineSpec(folder=tiny_path, policy="tiny", device="cpu", engine=engine))

    yield build
    for pool in pools:
        pool.close()


def processes(pool):
    return [worker._process for worker in pool._workers]


def test_the_number_of_workers_changes_nothing(make):
    results = []
    for workers in (1, 2, 3):
        _, engine = make(workers, 2)
        assert engine.name == "transformers/fp32"
        results.append((list(engine.generate(GENERATE)), list(engine.choose(CHOOSE))))
    assert len(results[0][0]) == len(GENERATE)
    assert results[0] == results[1] == results[2]
    assert [result.samples[0].token_ids for result in results[0][0]] != [results[0][0][0].samples[0].token_ids] * 11


def test_all_workers_take_part(make):
    pool, engine = make(2, 1)
    list(engine.choose(CHOOSE))
    assert all(process is not None and process.poll() is None for process in processes(pool))
    assert len({process.pid for process in processes(pool)}) == 2


def test_no_requests_are_no_answers(make):
    _, engine = make(2, 2)
    assert list(engine.generate([])) == []


def test_a_worker_that_dies_ends_the_whole_request(make):
    pool, engine = make(2, 1)
    list(engine.choose(CHOOSE))
    victim = processes(pool)[1]
    long = [request.model_copy(update={"max_new_tokens": 150, "n": 64}) for request in GENERATE * 4]

    def kill():
        time.sleep(0.5)
        os.kill(victim.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(WorkerDiedError, match="signal 9"):
        list(engine.generate(long))
    killer.join()
    assert processes(pool) == [None, None]
    assert len(list(engine.choose(CHOOSE))) == len(CHOOSE)  # and it can be asked again


def test_an_error_of_the_model_reaches_the_caller(make):
    _, engine = make(2, 2)
    requests = [*GENERATE, GenerateRequest(turns=turns(0), seed=0, max_new_tokens=100_000)]
    with pytest.raises(StageError, match="needs 100"):
        list(engine.generate(requests))


def test_answers_that_nobody_wants_leave_nothing_running(make):
    pool, engine = make(2, 1)
    answers = engine.generate(GENERATE)
    next(answers)
    answers.close()
    assert processes(pool) == [None, None]


def test_the_config_says_how_many(tmp_path):
    config = load_config("smoke", ["engine.workers=3", "engine.shard=7"])
    pool = WorkerPool.of(config, tmp_path / "worker.log")
    assert (len(pool._workers), pool._shard) == (3, 7)
    assert [worker._log.name for worker in pool._workers] == ["worker.log", "worker-1.log", "worker-2.log"]
