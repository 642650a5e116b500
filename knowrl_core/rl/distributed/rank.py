"""One process of an update: ``python -m knowrl_core.rl.distributed.rank JOB RESULT PROGRESS``.

Started by DeepSpeed's launcher, which sets ``RANK``, ``WORLD_SIZE`` and so on. Nothing heavy is imported before the
process is tied to its parent.
"""

import datetime
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from knowrl_core.errors import KnowrlError
from knowrl_core.rl.distributed.folder import LEASE, RankFailure, write_failure, write_whole
from knowrl_core.rl.job import UpdateJob, UpdateProgress, UpdateResult
from knowrl_core.worker.messages import Failure
from knowrl_core.worker.process import die_with_parent

LEASE_SECONDS: Final = 60.0
"""After as long without a sign of life from the one who started the update, this process ends."""

_PATIENCE: Final = datetime.timedelta(hours=2)
"""How long processes wait for one another: for the slowest disk that a checkpoint is written to or loaded from. One
that ends makes the launcher end the others at once."""


def main() -> None:
    """Take part in the update."""
    die_with_parent(os.getppid())
    job_file, result_file, progress_file = map(Path, sys.argv[1:])
    rank = int(os.environ["RANK"])
    threading.Thread(target=_watch, args=(job_file.with_name(LEASE),), daemon=True).start()
    try:
        job = UpdateJob.model_validate_json(job_file.read_bytes())
        result = _train(job, _reporter(progress_file) if rank == 0 else None)
        if rank == 0:
            write_whole(result_file, result.model_dump_json())
    except BaseException as error:
        traceback.print_exc()
        write_failure(result_file.parent, rank, _described(error))
        _leave(1)
    _leave(0)


def _train(job: UpdateJob, progress: Callable[[UpdateProgress], None] | None) -> UpdateResult:
    import deepspeed
    import torch

    from knowrl_core.models.load import setup_torch
    from knowrl_core.rl.distributed.backend import DeepSpeedBackend
    from knowrl_core.rl.distributed.config import deepspeed_settings
    from knowrl_core.rl.update import run_update

    setup_torch(int(os.environ.get("OMP_NUM_THREADS", "0")))
    if job.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        deepspeed.ops.__compatible_ops__ = {}  # else it compiles a faster all-reduce for CPUs, for minutes
    settings = deepspeed_settings(job.rl)
    backend = "nccl" if job.device == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=_PATIENCE)
    return run_update(job, progress=progress, backend=DeepSpeedBackend(settings))


def _reporter(path: Path) -> Callable[[UpdateProgress], None]:
    file = path.open("a", encoding="utf-8")

    def report(progress: UpdateProgress) -> None:
        file.write(progress.model_dump_json() + "\n")
        file.flush()

    return report


def _described(error: BaseException) -> RankFailure:
    if isinstance(error, KnowrlError):
        return RankFailure(cause="known", failure=Failure.of(error))
    # NCCL's errors have types of their own; gloo's are told by the file that they name.
    names = {kind.__name__ for kind in type(error).__mro__}
    peer = "DistError" in names or "gloo/transport" in str(error)
    failure = Failure(kind="StageError", message=f"{type(error).__name__}: {error}"[:2_000])
    return RankFailure(cause="peer" if peer else "unknown", failure=failure)


def _watch(lease: Path) -> None:
    """End this process when the lease is not renewed. Without a file (processes started by hand) there is none."""
    if not lease.exists():
        return
    seen, since = -1, time.monotonic()
    while True:
        try:
            stamp = lease.stat().st_mtime_ns
        except FileNotFoundError:
            _leave(1)
        if stamp != seen:
            seen, since = stamp, time.monotonic()
        elif time.monotonic() - since > LEASE_SECONDS:
            _leave(1)
        time.sleep(1.0)


def _leave(code: int) -> None:
    # At once: an orderly end would wait for the others, who may be waiting for this process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
