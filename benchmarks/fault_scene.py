"""Where faults are played: servers, an artifact root for each round, and the real command."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.e2e.helpers import KNOWRL, TINY, artifacts, belonging, environment_of, manifests
from tests.e2e.servers import Server

RUN = "smoke"
TMPFS_MB = 64


class Scene:
    """What all rounds share.

    Args:
        folder: Takes everything; emptied round by round.
        iterations: Of each run.
    """

    def __init__(self, folder: Path, iterations: int) -> None:
        self.folder, self.iterations = folder, iterations
        self.prefect, self.mlflow = Server("prefect", folder / "prefect"), Server("mlflow", folder / "mlflow")
        self.root = folder / "root"
        self.reference: dict[str, str] = {}
        self.seconds = 0.0
        """What an uninterrupted run takes."""

    def begin(self) -> None:
        """Start the servers, and make the run that all others are compared with."""
        self.prefect.start()
        self.mlflow.start()
        for _ in range(2):  # the first one finds the servers cold
            self.clear()
            begin = time.monotonic()
            code, text = self.finish(self.start({}))
            if code:
                raise SystemExit(f"the uninterrupted run failed with {code}\n{text}")
            self.seconds = time.monotonic() - begin
            if self.reference and self.files() != self.reference:
                raise SystemExit("two uninterrupted runs differ")
            self.reference = self.files()

    def end(self) -> None:
        """End the servers."""
        self.prefect.kill()
        self.mlflow.kill()

    def clear(self) -> None:
        """An empty root for the next round."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()

    def start(self, extra: Mapping[str, str], *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """The command, in a process group of its own; it starts the run or goes on with it."""
        options = [f"--set=run.root={self.root}", f"--set=run.iterations={self.iterations}"]
        small = [item for item in TINY if "tracking" not in item]
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                [*prefix, *KNOWRL, "run", f"--config={RUN}", *options, *small, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment_of(
                    self.folder / "home", PREFECT_API_URL=self.prefect.url, MLFLOW_TRACKING_URI=self.mlflow.url, **extra
                ),
            )

    def finish(self, process: subprocess.Popen[bytes], timeout: float = 600.0) -> tuple[int, str]:
        """Wait for its end; exit code and all that it printed."""
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 1, f"hung for {timeout:g} s\n" + (self.folder / "log").read_text(errors="replace")
        return code, (self.folder / "log").read_text(errors="replace")

    def tree(self, pid: int) -> list[psutil.Process]:
        """The process and all that belong to it and still run (a zombie feels no fault)."""
        try:
            main = psutil.Process(pid)
            found = {process.pid: process for process in [main, *main.children(recursive=True), *belonging(pid)]}
            return [process for process in found.values() if process.status() != psutil.STATUS_ZOMBIE]
        except psutil.Error:
            return []

    def left_behind(self, pid: int, seconds: float = 20.0) -> list[psutil.Process]:
        """What still runs although its run ended."""
        deadline = time.monotonic() + seconds
        while (found := belonging(pid)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def files(self) -> dict[str, str]:
        """sha256 of every artifact."""
        return artifacts(self.root / RUN)

    def committed(self) -> dict[str, str]:
        """sha256 of every manifest."""
        return manifests(self.root / RUN)
