"""Several model workers that share the requests of a stage."""

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from knowrl_core.config import Config
from knowrl_core.engines.base import ChooseRequest, ChooseResult, GenerateRequest, GenerateResult, GenerationEngine
from knowrl_core.worker.client import ModelWorker, OnProgress
from knowrl_core.worker.messages import EngineSpec

_Request = TypeVar("_Request", GenerateRequest, ChooseRequest)
_Answer = TypeVar("_Answer", GenerateResult, ChooseResult)
_Ask = Callable[[GenerationEngine, Sequence[_Request]], Iterator[_Answer]]


class WorkerPool:
    """Model workers side by side, each with the whole model: data parallelism for what samples and scores.

    Args:
        log: File that takes the first worker's standard error; the others' files have their number in the name.
        workers: Number of processes.
        shard: Most requests that a worker takes at a time.
        timeout: Seconds that one stage may take.
    """

    def __init__(self, log: Path, *, workers: int = 1, shard: int = 256, timeout: float = 86_400.0) -> None:
        logs = [log, *(log.with_stem(f"{log.stem}-{number}") for number in range(1, workers))]
        self._workers = [ModelWorker(path, timeout=timeout) for path in logs]
        self._shard = shard

    @classmethod
    def of(cls, config: Config, log: Path) -> "WorkerPool":
        """The workers that a config asks for."""
        engine, timeout = config.engine, config.orchestration.stage_timeout
        return cls(log, workers=engine.workers, shard=engine.shard, timeout=timeout)

    def begin_stage(self) -> None:
        """All requests from now on share the time of one stage."""
        for worker in self._workers:
            worker.begin_stage()

    def start(self) -> None:
        """Start the processes that do not run."""
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """End the processes; their memory is free when this returns."""
        for worker in self._workers:
            worker.close()

    def engine(self, spec: EngineSpec) -> "ShardedEngine":
        """An engine whose replicas live in the workers."""
        engines = [
            worker.engine(spec.model_copy(update={"replica": number})) for number, worker in enumerate(self._workers)
        ]
        return ShardedEngine(engines, self._shard, begin=self.start, abort=self.close)

    def update(self, spec: EngineSpec, job: dict[str, Any], *, progress: OnProgress | None = None) -> dict[str, Any]:
        """Run an RL update in the first worker; the others end before, since it may need their devices."""
        first, *others = self._workers
        for worker in others:
            worker.close()
        return first.update(spec, job, progress=progress)


class ShardedEngine:
    """An engine that cuts requests into shards and gives each to an engine that is free.

    What a request is batched with changes its answer by float noise. Shards are cut by number alone, and one engine
    computes a whole shard: so answers do not depend, to the last bit, on how many engines there are (given that each
    computes with as many threads).

    Args:
        engines: Replicas of one engine; each may be asked from another thread.
        shard: Requests of a shard.
        begin: Called before several engines are asked, in the thread that asks for the answers: a process that is
            started in another one would die with that thread (see :func:`~knowrl_core.worker.process.die_with_parent`).
        abort: Called when the answers are not wanted any more, or an engine failed: ends what still computes.
    """

    def __init__(
        self,
        engines: Sequence[GenerationEngine],
        shard: int,
        *,
        begin: Callable[[], None],
        abort: Callable[[], None],
    ) -> None:
        self._engines, self._shard, self._begin, self._abort = engines, shard, begin, abort

    @property
    def name(self) -> str:
        """Engine and arithmetic, as the lineage names it."""
        return self._engines[0].name

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[GenerateResult]:
        """Sample text for each request, in order."""
        return self._run(requests, lambda engine, part: engine.generate(part))

    def choose(self, requests: Sequence[ChooseRequest]) -> Iterator[ChooseResult]:
        """Score each request's choices, in order."""
        return self._run(requests, lambda engine, part: engine.choose(part))

    def _run(self, requests: Sequence[_Request], ask: "_Ask[_Request, _Answer]") -> Iterator[_Answer]:
        shards = [requests[first : first + self._shard] for first in range(0, len(requests), self._shard)]
        if len(self._engines) == 1:  # answers as they come, not shard by shard
            for shard in shards:
                yield from ask(self._engines[0], shard)
            return
        yield from self._side_by_side(shards, ask)

    def _side_by_side(self, shards: Sequence[Sequence[_Request]], ask: "_Ask[_Request, _Answer]") -> Iterator[_Answer]:
        free: queue.SimpleQueue[GenerationEngine] = queue.SimpleQueue()
        for engine in self._engines:
            free.put(engine)

        def work(shard: Sequence[_Request]) -> list[_Answer]:
            engine = free.get()
            try:
                return list(ask(engine, shard))
            finally:
                free.put(engine)

        self._begin()
        waiting = iter(shards)
        executor = ThreadPoolExecutor(len(self._engines), thread_name_prefix="knowrl-shard")
        done = False
        try:
            # Twice the engines are under way: none waits for work, and not all answers lie in memory.
            running: list[Future[list[_Answer]]] = [
                executor.submit(work, shard) for shard in islice(waiting, 2 * len(self._engines))
            ]
            while running:
                answers = running.pop(0).result()
                running += [executor.submit(work, shard) for shard in islice(waiting, 1)]
                yield from answers
            done = True
        finally:
            executor.shutdown(wait=done, cancel_futures=True)
            if not done:
                self._abort()  # so that the threads get their end of file
                executor.shutdown()
                self._abort()  # one may have been about to ask, which starts its process again
