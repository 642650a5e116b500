"""One writer a run: a lock that dies with its process, and says who holds it."""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from knowrl_core.errors import RunLockedError


class RunLock:
    """An advisory lock of the operating system on ``.lock``.

    It is held by an open file descriptor: when the process ends, however it ends, the system releases it, so a lock
    left by a dead process needs no cleaning up. Who holds it stands in ``.lock.json`` for the message only.

    Raises:
        RunLockedError: From ``with``, when another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._holder = path.with_name(path.name + ".json")
        self._lock = FileLock(path)

    def __enter__(self) -> Self:
        try:
            # `knowrl status` takes the lock for a moment to see whether it is free.
            self._lock.acquire(timeout=0.3)
        except Timeout:
            raise RunLockedError(
                f"run {self._path.parent.name!r} is being written by {self.holder()}",
                hint="Wait for it, or end that process; its lock ends with it.",
            ) from None
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self._holder.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": started}))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def holder(self) -> str:
        """Host, pid and start of whoever holds the lock, as far as they are known."""
        try:
            data = json.loads(self._holder.read_text())
            return f"process {data['pid']} on {data['host']}, started {data['started']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


def is_locked(path: Path) -> bool:
    """Whether some process writes to the run now."""
    if not os.access(path, os.R_OK | os.W_OK):  # none, or somebody else's run, where only they can tell
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
