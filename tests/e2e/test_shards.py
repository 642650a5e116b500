"""Several model workers share a run's requests: the artifacts are those of one worker, byte for byte."""

import pytest

from tests.e2e.helpers import TINY, artifacts, knowrl

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_the_number_of_workers_changes_no_artifact(tmp_path, home, prefect_server):
    found = []
    for workers in (1, 3):
        root = tmp_path / str(workers)
        options = [f"--set=run.root={root}", "--set=run.iterations=2", "--set=engine.threads=1", "--set=engine.shard=5"]
        command = ["run", "--config", "smoke", *options, f"--set=engine.workers={workers}", *TINY]
        knowrl(*command, home=home, check=0, PREFECT_API_URL=prefect_server)
        found.append(artifacts(root / "smoke"))
        assert (root / "smoke" / "logs" / "worker-2.log").exists() == (workers == 3)
    assert found[0] == found[1]
    assert found[0]
