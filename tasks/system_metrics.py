"""What the machine and the run's processes use: processor, memory, disk and GPUs, sampled in a thread.

MLflow's own monitor sees the machine only, ends for good at the first failure of its server, and asks the server at
each sample whether the run still goes on. So its readers of GPUs are used, and the rest is here. Stages that hold a
model run in worker processes: what the run uses is the sum over this process and all that descend from it.
"""

import contextlib
import importlib
import importlib.util
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

SAMPLES: Final = 6
"""Samples in the time of one point, so that a peak of memory between two points is seen."""

KEPT: Final = 50_000
"""Most values kept while MLflow is away: nearly six days at one point a minute. Then the oldest go."""

PREFIX: Final = "system/"
"""MLflow shows metrics that begin so on a page of their own."""

_MB: Final = 1e6


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    milliseconds: int
    """When, since 1970."""
    step: int
    """Second since the run was made."""


Log = Callable[[list[Point]], None]


class SystemMetrics:
    """Samples until it is stopped.

    A value is a mean over its time, and for the run's memory the peak. Its step is the second since the run was
    made, so that what a resumed run measures goes on where the attempt before ended, and no step has two values.

    Args:
        seconds: Between two points.
        folder: On the disk whose free space is watched.
        begun: When the run was made, ISO 8601.
    """

    def __init__(self, seconds: float, folder: Path, *, begun: str) -> None:
        self._seconds, self._folder = seconds, folder
        self._zero = datetime.fromisoformat(begun).timestamp()
        self._points: list[Point] = []
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, log: Log) -> None:
        """Begin; each point is passed on at once, and kept for later if that fails."""
        self._thread = threading.Thread(target=self._run, args=(log,), name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the last point and end; a thread that waits for a dead server is left behind."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def hand_over(self, log: Log) -> None:
        """Pass on what is kept, and forget it once it is logged.

        Raises:
            Exception: Whatever ``log`` raises; then all is still kept.
        """
        with self._lock:
            points = list(self._points)
        if points:
            log(points)
            logged = set(points)
            with self._lock:
                self._points = [point for point in self._points if point not in logged]

    def _run(self, log: Log) -> None:
        machine = _Machine()
        first = True
        while not self._end.is_set():
            began = time.monotonic()
            samples: list[float] = []
            while len(samples) < SAMPLES and not self._end.wait(self._seconds / SAMPLES):
                samples.append(machine.sample())
            lasted = time.monotonic() - began
            # The rest at the end counts if it is worth a point, or all there is.
            if self._end.is_set() and lasted < (1.0 if first else self._seconds / 2):
                return
            self._keep(machine.point([*samples, machine.sample()], self._folder))
            first = False
            if not self._end.is_set():
                with contextlib.suppress(Exception):  # MLflow is away, as the log of the stages says
                    self.hand_over(log)

    def _keep(self, values: dict[str, float]) -> None:
        now = time.time()
        step = max(0, int(now - self._zero))
        with self._lock:
            new = [Point(f"{PREFIX}{name}", round(value, 3), int(now * 1000), step) for name, value in values.items()]
            self._points = [*self._points, *new][-KEPT:]


class _Machine:
    """Reads what is used now; the processor's figures are means since the last reading."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._spent: dict[tuple[int, float], float] = {}
        self._gpus = _gpu_reader()
        psutil.cpu_percent()
        self._cpu_seconds()
        self._since = time.monotonic()

    def sample(self) -> float:
        """Megabytes of the run's processes; the GPUs' reader keeps its samples by itself."""
        if self._gpus is not None:
            self._gpus.collect_metrics()
        return sum(map(_memory, self._processes())) / _MB

    def point(self, memory: list[float], folder: Path) -> dict[str, float]:
        """All values since the last point.

        Args:
            memory: The samples of the run's memory in between.
            folder: On the disk whose free space is read.
        """
        whole = psutil.virtual_memory()
        now = time.monotonic()
        cores = self._cpu_seconds() / max(now - self._since, 1e-3)
        self._since = now
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": (whole.total - whole.available) / _MB,
            "system_memory_usage_percentage": whole.percent,
            "run_cpu_cores": cores,
            "run_memory_peak_megabytes": max(memory),
        }
        with contextlib.suppress(OSError):
            values["disk_available_megabytes"] = psutil.disk_usage(str(folder)).free / _MB
        if self._gpus is not None:
            values |= self._gpus.aggregate_metrics()
            self._gpus.clear_metrics()
        return values

    def _processes(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return [self._own, *self._own.children(recursive=True)]
        return [self._own]

    def _cpu_seconds(self) -> float:
        """Seconds of processor time since the last call, of the processes that live now."""
        spent: dict[tuple[int, float], float] = {}
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                spent[process.pid, process.create_time()] = times.user + times.system
        before, self._spent = self._spent, spent
        return sum(total - before.get(key, 0.0) for key, total in spent.items())


def _memory(process: psutil.Process) -> float:
    """Bytes of a process; pages that it shares count by its part where the system tells (Linux)."""
    try:
        return float(getattr(process.memory_full_info(), "pss", 0) or process.memory_info().rss)
    except psutil.Error:  # it ended meanwhile, or belongs to somebody else
        return 0.0


def _gpu_reader() -> Any:
    """MLflow's reader of NVIDIA or AMD GPUs; None without any, or without the library that reads them."""
    for module, library, name in (("gpu_monitor", "pynvml", "GPUMonitor"), ("rocm_monitor", "pyrsmi", "ROCMMonitor")):
        if importlib.util.find_spec(library) is not None:
            with contextlib.suppress(Exception):  # the library is there, and no GPU
                found = importlib.import_module(f"mlflow.system_metrics.metrics.{module}")
                return getattr(found, name)()
    return None
