"""The model worker: the process that holds the model.

Started by :class:`knowrl_core.worker.client.ModelWorker` as ``python -m knowrl_core.worker.server PARENT_PID``. It
reads requests from standard input and answers on standard output until its input ends. Memory and crashes of the model
stay here.
"""

import contextlib
import ctypes
import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from typing import IO, Any

from knowrl_core.engines.base import ChooseRequest, GenerateRequest, GenerationEngine, Reloadable
from knowrl_core.errors import KnowrlError
from knowrl_core.worker.messages import EngineSpec, Failure, Progress, Reply, Request
from knowrl_core.worker.process import die_with_parent


class Server:
    """Answers requests one by one; keeps the engine loaded while the policy stays the same."""

    def __init__(self, answers: IO[str]) -> None:
        self._answers = answers
        self._spec: EngineSpec | None = None
        self._engine: GenerationEngine | None = None
        self._resting = False
        """The engine gave its memory back, and has to load before it answers again."""
        self._threads: tuple[int, int] | None = None

    def serve(self, line: bytes) -> None:
        """Answer one request line; an error is an answer, too."""
        try:
            request = Request.model_validate_json(line)
            for reply in self._answer(request):
                self._send(reply)
        except KnowrlError as error:
            self._send(Reply(error=Failure.of(error)))
        except Exception as error:
            traceback.print_exc()
            self._drop_engine()
            self._send(Reply(error=Failure(kind="StageError", message=f"{type(error).__name__}: {error}"[:2_000])))

    def _answer(self, request: Request) -> Iterator[Reply]:
        if request.op == "update":
            yield Reply(done=self._update(request.engine, request.job or {}))
            return
        engine = self._load(request.engine)
        if request.op == "describe":
            yield Reply(done={"name": engine.name})
        elif request.op == "generate":
            for result in engine.generate([GenerateRequest.model_validate(item) for item in request.items]):
                yield Reply(item=result.model_dump(mode="json"))
            yield Reply(done={})
        else:
            for choice in engine.choose([ChooseRequest.model_validate(item) for item in request.items]):
                yield Reply(item=choice.model_dump(mode="json"))
            yield Reply(done={})

    def _update(self, spec: EngineSpec, job: dict[str, Any]) -> dict[str, Any]:
        from knowrl_core.models.load import pick_device
        from knowrl_core.rl import UpdateJob, UpdateProgress
        from knowrl_core.rl.distributed.launch import run_distributed
        from knowrl_core.rl.update import run_update

        self._clear_the_device()  # training needs the memory
        self._set_up(spec)
        todo = UpdateJob.model_validate({**job, "device": pick_device(spec.device).type})

        def report(step: UpdateProgress) -> None:
            tokens = step.step.tokens if step.step else 0
            self._send(Reply(progress=Progress(done=step.done, total=step.total, phase=step.phase, tokens=tokens)))

        run = run_distributed if todo.rl.trainer == "deepspeed" else run_update
        try:
            return run(todo, progress=report).model_dump(mode="json")
        finally:
            _release_memory()

    def _load(self, spec: EngineSpec) -> GenerationEngine:
        from knowrl_core.engines import build_engine

        self._set_up(spec, share=spec.engine.workers)
        if isinstance(self._engine, Reloadable) and self._same_but_for_weights(spec):
            if self._resting or self._spec != spec:
                self._engine.load(spec.folder)
        elif self._engine is None or self._spec != spec:
            self._drop_engine()
            self._engine = build_engine(
                spec.engine,
                spec.folder,
                device=spec.device,
                replica=spec.replica,
                log=spec.log,
                adapter_rank=spec.adapter_rank,
            )
        self._spec, self._resting = spec, False
        return self._engine

    def _same_but_for_weights(self, spec: EngineSpec) -> bool:
        change = {"folder": spec.folder, "policy": spec.policy}
        return self._spec is not None and self._spec.model_copy(update=change) == spec

    def _clear_the_device(self) -> None:
        if isinstance(self._engine, Reloadable):
            self._engine.rest()
            self._resting = True
        else:
            self._drop_engine()

    def _set_up(self, spec: EngineSpec, *, share: int = 1) -> None:
        """Set the threads; ``share`` workers compute at the same time."""
        from knowrl_core.models.load import setup_torch

        if self._threads != (spec.engine.threads, share):
            setup_torch(spec.engine.threads, share=share)
            self._threads = spec.engine.threads, share

    def _drop_engine(self) -> None:
        if self._engine is not None:
            if isinstance(self._engine, Reloadable):
                self._engine.close()
            self._engine = self._spec = None
            _release_memory()

    def close(self) -> None:
        """End what the engine started."""
        self._drop_engine()

    def _send(self, reply: Reply) -> None:
        self._answers.write(reply.model_dump_json(exclude_none=True) + "\n")
        self._answers.flush()


def _release_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps freed memory otherwise; others have no such call
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    """Serve until standard input ends."""
    die_with_parent(int(sys.argv[1]))
    # Only answers may reach the pipe: whatever a library prints goes to the log with standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    server = Server(answers)
    for line in sys.stdin.buffer:
        server.serve(line)
    server.close()


if __name__ == "__main__":
    main()
