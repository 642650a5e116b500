"""Real servers for the end-to-end tests, on loopback and free ports."""

import os
import socket
import subprocess
import sys
import time

import httpx
import pytest

from tests.e2e.helpers import TINY, environment_of, knowrl


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A Prefect home for the whole session: one database is made once."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def prefect_server(home):
    """A Prefect server; gives its API URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    log = (home / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        stdout=log,
        stderr=log,
        start_new_session=True,
        env=environment_of(home, PREFECT_SERVER_ANALYTICS_ENABLED="false", PREFECT_API_URL=url),
    )
    deadline = time.monotonic() + 180
    while True:
        assert process.poll() is None, (home / "server.log").read_text()
        assert time.monotonic() < deadline, "the Prefect server did not start within 180 s"
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.2)
    yield url
    os.killpg(process.pid, 15)
    process.wait(30)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, home, prefect_server):
    """Folder of an uninterrupted smoke run of one iteration, to compare with or to copy; it is not to be changed."""
    root = tmp_path_factory.mktemp("reference")
    options = [f"--set=run.root={root}", "--set=run.iterations=1", *TINY]
    knowrl("run", "--config=smoke", *options, home=home, check=0, PREFECT_API_URL=prefect_server)
    return root / "smoke"
