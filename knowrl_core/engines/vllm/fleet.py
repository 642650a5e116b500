"""Several servers that share the requests, and what happens when one dies."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

from knowrl_core.engines.vllm.api import ServerGoneError, VllmApi
from knowrl_core.errors import StageError

Job = TypeVar("Job")
Answer = TypeVar("Answer")
Revive = Callable[[], VllmApi]
_log: Final = logging.getLogger(__name__)
_AHEAD: Final = 4
"""Jobs under way or answered ahead of the one that is waited for, as a multiple of those at a time."""
_PAUSE: Final = 1.0
"""Seconds before the first further attempt; twice as many before each next one."""


class Fleet:
    """Deals jobs out to servers; an answer that is there is kept, whatever happens to the others.

    Args:
        apis: The servers.
        concurrency: Jobs at a time on each.
        retries: Further attempts of one job, beyond those on other servers.
        revive: Starts the pipeline's own server again; None for servers that others run.
        where: Where to look when all is lost, for the error.
    """

    def __init__(
        self, apis: Sequence[VllmApi], *, concurrency: int, retries: int, where: str, revive: Revive | None = None
    ) -> None:
        self.apis = list(apis)
        self._concurrency, self._retries = concurrency, retries
        self.where, self.revive = where, revive
        self._dead: dict[int, ServerGoneError] = {}
        self._retired: list[VllmApi] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        for api in (*self.apis, *self._retired):
            api.close()

    def run(self, jobs: Sequence[Job], ask: Callable[[VllmApi, Job], Answer]) -> Iterator[Answer]:
        """Answers of the jobs in their order, as they become ready.

        Args:
            jobs: What to ask; each may be asked again, on another server.
            ask: Asks one server for one job.

        Raises:
            StageError: A job failed on every server, or a server refused it.
        """
        self._dead.clear()  # one that others run may have come back
        workers = self._concurrency * len(self.apis)
        waiting = iter(enumerate(jobs))
        executor = ThreadPoolExecutor(workers, thread_name_prefix="knowrl-vllm")
        stopped = threading.Event()

        def work(place: int, job: Job) -> Answer:
            return self._attempts(place, lambda api: ask(api, job), stopped)

        try:
            running: list[Future[Answer]] = [executor.submit(work, *item) for item in islice(waiting, _AHEAD * workers)]
            while running:
                answer = running.pop(0).result()
                running += [executor.submit(work, *item) for item in islice(waiting, 1)]
                yield answer
        finally:
            stopped.set()
            executor.shutdown(cancel_futures=True)

    def _attempts(self, place: int, ask: Callable[[VllmApi], Answer], stopped: threading.Event) -> Answer:
        failures = 0
        while True:
            number = self._pick(place + failures)
            api = self.apis[number]
            try:
                return ask(api)
            except ServerGoneError as error:
                failures += 1
                if stopped.is_set():
                    raise
                _log.warning("%s: %s (attempt %d)", api.url, error, failures)
                if failures > self._retries + len(self._dead):
                    raise StageError(
                        f"{api.url} failed {failures} times, the last time with: {error}", hint=self.where
                    ) from error
                self._look_after(number, api, error)
                stopped.wait(_PAUSE * 2.0 ** min(failures - 1, 4) if api.healthy() else 0.0)

    def _pick(self, place: int) -> int:
        """A server that lives.

        Raises:
            StageError: None does.
        """
        with self._lock:
            alive = [number for number in range(len(self.apis)) if number not in self._dead]
            if not alive:
                number, error = next(reversed(self._dead.items()))
                raise StageError(
                    f"no vLLM server is left; the last one was {self.apis[number].url}: {error}", hint=self.where
                ) from error
            return alive[place % len(alive)]

    def _look_after(self, number: int, api: VllmApi, error: ServerGoneError) -> None:
        """Count a server out that is dead, or start it again if it is the pipeline's own."""
        with self._lock:
            if self.apis[number] is not api or number in self._dead or _alive(api):
                return  # another job has seen to it, or it lives
            if self.revive is not None:
                _log.warning("%s died; starting it again", api.url)
                self._retired.append(api)  # other jobs may be about to ask it
                self.apis[number] = self.revive()
                return
            self._dead[number] = error
            _log.warning("%s is dead; its requests go to others, if there are any", api.url)


def _alive(api: VllmApi) -> bool:
    """Whether a server answers; a second look, since a busy one may be slow."""
    for pause in (0.0, 0.5):
        time.sleep(pause)
        if api.healthy():
            return True
    return False
