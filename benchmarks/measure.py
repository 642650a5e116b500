"""Each side of a comparison in a process of its own, with its time and memory measured alike.

A side is built in a spawned process. Its peak memory is the kernel's high-water mark of resident memory
(``VmHWM`` of ``/proc/self/status``), set back to the present before each measurement, so that the increase is what the
work needs on top of what it found, whatever libraries the process has loaded.
"""

import ctypes
import gc
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import psutil

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Measured(Generic[R]):
    """One piece of work and what it took."""

    report: R
    """What it answered."""
    seconds: float
    before: int
    """Resident bytes before it: libraries, model, optimizer state, rollouts."""
    peak: int
    """Most resident bytes during it."""


class Side(Protocol):
    """One way to do the work, with a method for each piece of it. ``label`` names it in the table."""

    label: str

    def warm_up(self) -> None:
        """A small piece of the work, so that the first measurement is like the others."""
        ...


def measure(work: Callable[[], R]) -> Measured[R]:
    """Do a piece of work; time it, and take the peak memory of this process and of the servers that it started."""
    family = [process.pid for process in psutil.Process().children(recursive=True)]
    before = reset_peak() + sum(map(reset_peak, family))
    start = time.perf_counter()
    report = work()
    seconds = time.perf_counter() - start
    return Measured(report, seconds, before, peak() + sum(map(peak, family)))


def reset_peak(process: int | None = None) -> int:
    """Set the high-water mark of a process to what is resident now, and return it (bytes).

    Args:
        process: Its id; None for this one, which gives free memory back before.
    """
    if process is None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed pages otherwise
    Path(f"/proc/{process or 'self'}/clear_refs").write_text("5", encoding="ascii")
    return peak(process)


def peak(process: int | None = None) -> int:
    """Most resident bytes of a process since :func:`reset_peak`; this one's if None."""
    for line in Path(f"/proc/{process or 'self'}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc has no VmHWM; memory can be measured on Linux only")


class Worker:
    """A side in a spawned process.

    Args:
        build: Module-level function that makes the side there.
        arguments: Its arguments; they are pickled.
    """

    def __init__(self, build: Callable[..., Side], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_serve, args=(remote, build, arguments), daemon=True)
        self._process.start()
        remote.close()
        self.label: str = self._answer()

    def measure(self, method: str, *arguments: Any) -> Measured[Any]:
        """Call a method of the side, measured."""
        self._connection.send((method, arguments, True))
        result = self._answer()
        if not isinstance(result, Measured):
            raise TypeError(f"{method} answered {type(result).__name__}, expected Measured")
        return result

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the side."""
        self._connection.send((method, arguments, False))
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()

    def _answer(self) -> Any:
        try:
            error, value = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a side's process ended with exit code {self._process.exitcode}") from None
        if error:
            raise RuntimeError(f"a side failed:\n{error}")
        return value


def _serve(connection: Connection, build: Callable[..., Side], settings: tuple[Any, ...]) -> None:
    for variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRANSFORMERS_NO_ADVISORY_WARNINGS"):
        os.environ[variable] = "1"
    try:
        side = build(*settings)
        side.warm_up()
        connection.send((None, side.label))
        while True:
            try:
                method, arguments, measured = connection.recv()
            except EOFError:
                return
            work = partial(getattr(side, method), *arguments)
            connection.send((None, measure(work) if measured else work()))
    except Exception:  # whatever it is, the parent shows it
        connection.send((traceback.format_exc(), None))
