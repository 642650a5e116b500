"""Start the processes of an update, follow them, and be sure that none is left."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from knowrl_core.errors import KnowrlError, StageError, WorkerDiedError
from knowrl_core.places import expanded
from knowrl_core.rl.distributed import command
from knowrl_core.rl.distributed import folder as words
from knowrl_core.rl.distributed.config import check_deepspeed
from knowrl_core.rl.job import UpdateJob, UpdateProgress, UpdateResult
from knowrl_core.worker.process import end, tail

GUARD: Final = "knowrl_core.rl.distributed.guard"
_GRACE: Final = 3.0
"""Seconds that the other processes have to leave word, too, once one has failed."""
_POLL: Final = 0.1


def run_distributed(job: UpdateJob, *, progress: Callable[[UpdateProgress], None] | None = None) -> UpdateResult:
    """Do what ``run_update`` does, in processes that DeepSpeed's launcher starts; they have ended when this returns.

    Args:
        job: What to do. Its folders must be the same on all nodes.
        progress: Called as the work goes on.

    Raises:
        KnowrlError: What one of the processes raised. ``output_dir`` does not exist then.
        WorkerDiedError: One of them ended without a word.
    """
    check_deepspeed(job.rl)
    fresh = not job.output_dir.exists()
    job.output_dir.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".deepspeed-", dir=job.output_dir.parent)).absolute()
    try:
        return _run(job, folder, progress or (lambda _: None))
    except BaseException:
        if fresh:
            shutil.rmtree(job.output_dir, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(job: UpdateJob, folder: Path, progress: Callable[[UpdateProgress], None]) -> UpdateResult:
    words.write_whole(folder / words.JOB, _with_absolute_paths(job).model_dump_json())
    for name in (words.LEASE, words.PROGRESS):
        (folder / name).touch()
    environment = command.environment(job)
    (folder / words.ENVIRONMENT).write_text(command.passed_on(environment), encoding="utf-8")
    guarded = [sys.executable, "-m", GUARD, str(os.getpid()), *command.launcher(job, folder)]
    with (folder / words.LOG).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - this interpreter and DeepSpeed's launcher
            guarded,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**environment, "DS_ENV_FILE": str(folder / words.ENVIRONMENT)},
        )
    try:
        _follow(process, folder, progress)
    finally:
        end(process)
        sys.stderr.write((folder / words.LOG).read_text(encoding="utf-8", errors="replace"))
    if process.returncode == 0 and (folder / words.RESULT).exists():
        return UpdateResult.model_validate_json((folder / words.RESULT).read_bytes())
    raise _error(process.returncode, folder)


def _follow(process: "subprocess.Popen[bytes]", folder: Path, progress: Callable[[UpdateProgress], None]) -> None:
    """Wait for the launcher's end, or for a failure."""
    until: float | None = None
    with (folder / words.PROGRESS).open("rb") as file:
        running, rest = True, b""
        while running:
            running = process.poll() is None
            (folder / words.LEASE).touch()
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                progress(UpdateProgress.model_validate_json(line))
            if until is None and words.has_failure(folder):
                until = time.monotonic() + _GRACE
            if until is not None and time.monotonic() > until:
                return
            if running:
                time.sleep(_POLL)


def _error(code: int, folder: Path) -> KnowrlError:
    found = words.first_failure(folder)
    log = tail(folder / words.LOG)
    if found is not None and found.cause == "known":
        return found.failure.as_error()
    if found is not None:
        return StageError(f"{found.failure.message}\n{log}")
    # The launcher hands on the code of a process that a signal ended as it is, and so the system cuts it to 8 bits.
    number = -code if code < 0 else 256 - code
    reason = f"signal {number}" if number in set(signal.Signals) else f"exit code {code}"
    return WorkerDiedError(
        f"a process of the update ended and left no word (launcher: {reason})\n{log}",
        hint="Most often the machine ran out of memory: see the kernel's log, and lower rl.micro_token_budget or split "
        "more with rl.deepspeed.stage.",
    )


def _with_absolute_paths(job: UpdateJob) -> UpdateJob:
    config = job.rl.deepspeed.config
    absolute = None if config is None else str(expanded(config).absolute())
    deepspeed = job.rl.deepspeed.model_copy(update={"config": absolute})
    return job.model_copy(update={"rl": job.rl.model_copy(update={"deepspeed": deepspeed})})
