"""The pipeline's side of the model worker."""

import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from knowrl_core.engines.base import ChooseRequest, ChooseResult, GenerateRequest, GenerateResult
from knowrl_core.errors import StageError, WorkerDiedError
from knowrl_core.worker.messages import EngineSpec, Progress, Reply, Request
from knowrl_core.worker.process import end, spawn, tail

MODULE: Final = "knowrl_core.worker.server"

ENVIRONMENT: Final = {
    # Idle OpenMP threads that spin take the cores from all others. It must be set before torch is loaded.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What a worker's process has set, unless the environment says something else."""

OnProgress = Callable[[Progress], None]
"""Called as an update goes on."""


class ModelWorker:
    """Starts the worker process when it is needed, and again if it has died.

    Args:
        log: File that takes the worker's standard error.
        timeout: Seconds that one stage may take (see :meth:`begin_stage`), or one request outside of any; then the
            worker is killed.
    """

    def __init__(self, log: Path, *, timeout: float = 86_400.0) -> None:
        self._log = log
        self._timeout = timeout
        self._deadline = math.inf
        self._process: subprocess.Popen[bytes] | None = None

    def begin_stage(self) -> None:
        """All requests from now on share the time of one stage."""
        self._deadline = time.monotonic() + self._timeout

    def start(self) -> None:
        """Start the process, if it does not run; returns at once (it loads its libraries meanwhile)."""
        if self._process is None or self._process.poll() is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as log:
                self._process = spawn(
                    MODULE,
                    log,
                    environment={name: value for name, value in ENVIRONMENT.items() if name not in os.environ},
                )

    def close(self) -> None:
        """End the process; its memory is free when this returns."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def engine(self, spec: EngineSpec) -> "RemoteEngine":
        """An engine that lives in the worker."""
        return RemoteEngine(self, spec)

    def update(self, spec: EngineSpec, job: dict[str, Any], *, progress: OnProgress | None = None) -> dict[str, Any]:
        """Run an RL update in the worker; returns its result as JSON data."""
        done: dict[str, Any] = {}
        for reply in self.ask(Request(op="update", engine=spec, job=job)):
            if reply.progress and progress:
                progress(reply.progress)
            done = reply.done if reply.done is not None else done
        return done

    def ask(self, request: Request) -> Iterator[Reply]:
        """Send a request and yield the answer's lines as they come.

        Raises:
            KnowrlError: What the worker answered.
            WorkerDiedError: The worker ended in the middle; its log's tail is in the message.
            StageError: It took too long.
        """
        self.start()
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise WorkerDiedError("the model worker did not start")
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        watchdog = threading.Timer(max(0.0, min(self._timeout, self._deadline - time.monotonic())), expire)
        watchdog.daemon = True
        watchdog.start()
        finished = False
        try:
            process.stdin.write(request.model_dump_json().encode() + b"\n")
            process.stdin.flush()
            while not finished:
                line = process.stdout.readline()
                if not line.endswith(b"\n"):
                    raise self._died(process, timed_out=expired.is_set())
                reply = Reply.model_validate_json(line)
                finished = reply.done is not None or reply.error is not None
                if reply.error:
                    raise reply.error.as_error()
                yield reply
        except (BrokenPipeError, ValidationError) as error:
            finished = False
            raise self._died(process, timed_out=expired.is_set()) from error
        finally:
            watchdog.cancel()
            if not finished:  # an answer may still be on its way: this process cannot be asked again
                self.close()

    def _died(self, process: subprocess.Popen[bytes], *, timed_out: bool) -> StageError:
        end(process)
        if timed_out:
            return StageError(
                f"the model worker did not finish within the {self._timeout:,.0f} s of a stage",
                hint="Raise orchestration.stage_timeout, or make the stage smaller.",
            )
        code = process.returncode
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = "Signal 9 usually means that the machine ran out of memory. " if code == -9 else ""
        return WorkerDiedError(
            f"the model worker ended with {reason}\n{tail(self._log)}", hint=f"{hint}Log: {self._log}"
        )


class RemoteEngine:
    """A generation engine whose model is in the worker (see :class:`GenerationEngine`)."""

    def __init__(self, worker: ModelWorker, spec: EngineSpec) -> None:
        self._worker = worker
        self._spec = spec

    @property
    def name(self) -> str:
        """Engine and arithmetic, as the lineage names it."""
        for reply in self._worker.ask(Request(op="describe", engine=self._spec)):
            if reply.done is not None:
                return str(reply.done["name"])
        raise StageError("the model worker did not say what it is")

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[GenerateResult]:
        """Sample text for each request, in order."""
        items = [request.model_dump(mode="json") for request in requests]
        for reply in self._worker.ask(Request(op="generate", engine=self._spec, items=items)):
            if reply.item is not None:
                yield GenerateResult.model_validate(reply.item)

    def choose(self, requests: Sequence[ChooseRequest]) -> Iterator[ChooseResult]:
        """Score each request's choices, in order."""
        items = [request.model_dump(mode="json") for request in requests]
        for reply in self._worker.ask(Request(op="choose", engine=self._spec, items=items)):
            if reply.item is not None:
                yield ChooseResult.model_validate(reply.item)
