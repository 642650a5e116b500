"""One writer a run: a lock that dies with its process, says who holds it, and is seen from other machines."""

import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from knowrl_core.errors import RunLockedError
from knowrl_core.storage.files import read_small, write_atomic

BEAT: Final = 10.0
"""Seconds between two signs of life."""
STALE: Final = 60.0
"""Seconds without one after which a holder on another machine counts as dead."""
DEAD_MACHINE: Final = f"if its machine is dead, this is known {STALE:g} s after its last sign of life."


class RunLock:
    """An advisory lock of the operating system on ``.lock``, and a record of the holder beside it.

    The lock is held by an open file descriptor: when the process ends, however it ends, the system releases it, so a
    lock left by a dead process needs no cleaning up.

    Not every shared file system passes such locks on to other machines. So the holder touches its record every
    :data:`BEAT` seconds, and a record of another machine that is younger than :data:`STALE` counts as a lock. Both
    times are those of the file server, so that the machines' clocks do not matter.

    Raises:
        RunLockedError: From ``with``, when another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._holder = path.with_name(path.name + ".json")
        self._lock = FileLock(path)
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        try:
            # `knowrl status` takes the lock for a moment to see whether it is free.
            self._lock.acquire(timeout=0.3)
        except Timeout:
            raise held(self._path.parent.name, self.holder(), "its lock ends with it.") from None
        if _lives_elsewhere(self._holder):
            self._lock.release()
            raise held(self._path.parent.name, self.holder(), DEAD_MACHINE)
        write_atomic(self._holder, json.dumps(own_record()), durable=False)
        self._ended.clear()
        threading.Thread(target=self._beat, name="knowrl-lock", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                os.utime(self._holder)
            except OSError:  # a full or read-only disk: the stages will say so; a record that is gone ends with the run
                continue

    def holder(self) -> str:
        """Host, pid and start of whoever holds the lock, as far as they are known."""
        return describe(_read(self._holder))


def own_record() -> dict[str, Any]:
    """This process as the holder of a lock."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "machine": machine(), "pid": os.getpid(), "started": started}


def parse_record(text: str | bytes) -> dict[str, Any]:
    """A holder's record; empty if it is none."""
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes to a run, as its record says."""

    host: str
    pid: int
    started: str


def holder_of(record: dict[str, Any]) -> Holder | None:
    """The holder that a record names; None if it does not name one. A run directory may come from anybody."""
    host, pid, started = (record.get(name) for name in ("host", "pid", "started"))
    if not isinstance(host, str) or not isinstance(pid, int) or not isinstance(started, str):
        return None
    return Holder(host[:255], pid, started[:40])


def read_holder(path: Path) -> Holder | None:
    """The holder of a lock, as far as it is known.

    Args:
        path: The lock.
    """
    return holder_of(_read(path.with_name(path.name + ".json")))


def describe(record: dict[str, Any]) -> str:
    """Host, pid and start of a holder, as far as they are known."""
    try:
        return f"process {record['pid']} on {record['host']}, started {record['started']}"
    except KeyError:
        return "another process"


def held(run: str, who: str, what_then: str) -> RunLockedError:
    """That a run has a writer, and what to do."""
    return RunLockedError(
        f"run {run!r} is being written by {who}", hint=f"Wait for it, or end that process; {what_then}"
    )


def machine() -> str:
    """Names the running kernel, whose locks all its processes see, those in other containers, too."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def is_locked(path: Path) -> bool:
    """Whether some process writes to the run now."""
    if not os.access(path, os.R_OK | os.W_OK):  # none, or somebody else's run, whose record must do
        return _is_fresh(path.with_name(path.name + ".json"))
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return _lives_elsewhere(path.with_name(path.name + ".json"))


def _is_fresh(holder: Path) -> bool:
    """Whether a record was touched lately, by this machine's clock."""
    try:
        return abs(time.time() - holder.stat().st_mtime) < STALE
    except OSError:
        return False


def _lives_elsewhere(holder: Path) -> bool:
    """Whether a record is that of another machine, and fresh. On this machine the system's lock has said all."""
    data = _read(holder)
    if not data or data.get("machine", machine()) == machine():
        return False
    probe = holder.with_name(f"{holder.name}.{os.getpid()}")
    try:
        probe.unlink(missing_ok=True)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        # A record from the future is no sign of life either: its machine's clock has been set back since.
        return abs(probe.stat().st_mtime - holder.stat().st_mtime) < STALE
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _read(holder: Path) -> dict[str, Any]:
    try:
        return parse_record(read_small(holder, most=65_536))
    except OSError:
        return {}
