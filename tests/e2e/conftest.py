"""Real servers for the end-to-end tests, on loopback and free ports."""

import signal

import pytest

from tests.e2e.helpers import TINY, knowrl
from tests.e2e.servers import Server


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A Prefect home for the whole session: one database is made once."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def prefect_server(home):
    """A Prefect server; gives its API URL."""
    server = Server("prefect", home)
    server.start()
    yield server.url
    server.kill(signal.SIGTERM)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, home, prefect_server):
    """Folder of an uninterrupted smoke run of one iteration, to compare with or to copy; it is not to be changed."""
    root = tmp_path_factory.mktemp("reference")
    options = [f"--set=run.root={root}", "--set=run.iterations=1", *TINY]
    knowrl("run", "--config=smoke", *options, home=home, check=0, PREFECT_API_URL=prefect_server)
    return root / "smoke"
