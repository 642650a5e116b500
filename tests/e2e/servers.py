"""Real servers on loopback: Prefect, MLflow, and moto's implementation of S3."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import httpx

from knowrl_core.worker.process import free_port
from tests.e2e.helpers import environment_of

START = 180.0
"""Seconds that a server has to answer."""


class Server:
    """A server on a free port of 127.0.0.1, which can be killed and started again on the same one.

    Args:
        kind: Whose.
        folder: Takes its database, files and log, and is its home.
    """

    def __init__(self, kind: Literal["prefect", "mlflow", "s3"], folder: Path) -> None:
        self.kind, self.folder, self.port = kind, folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Its address; of Prefect's API where it is Prefect's."""
        base = f"http://127.0.0.1:{self.port}"
        return f"{base}/api" if self.kind == "prefect" else base

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", self.kind, "server"]
        extra = {}
        if self.kind == "prefect":
            command.append("start")
            extra = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_API_URL": self.url}
        elif self.kind == "s3":
            command = [sys.executable, "-m", "moto.server"]
        else:
            command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
            command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.port)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
                env=environment_of(self.folder, **extra),
            )
        deadline = time.monotonic() + START
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the {self.kind} server does not start: see {self.folder / 'server.log'}")
            time.sleep(0.2)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and what it started."""
        if self._process is not None:
            os.killpg(self._process.pid, number)
            self._process.wait(30)
            self._process = None

    def _answers(self) -> bool:
        try:
            place = "moto-api/" if self.kind == "s3" else "health"
            return httpx.get(f"{self.url}/{place}", timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False
