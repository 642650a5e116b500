"""The shipped configuration knows nothing of one model: other families go through all of it unchanged."""

import pytest

from knowrl_core.models.tiny import tiny_folder
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.manifest import read_manifest
from knowrl_core.storage.schemas import ConsensusRecord, VerdictRecord
from knowrl_core.storage.tables import read_table
from tests.e2e.helpers import TINY, knowrl

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FAST = [
    "--set=introspection.sampling.max_new_tokens=48",
    "--set=consensus.reward.channel_shots=4",
    "--set=introspection.calls_per_label=12",  # random models write few tasks that are kept, and ranks need some
]


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_shipped_configuration_trains_another_family(tmp_path, home, prefect_server, architecture):
    folder, _ = tiny_folder(architecture)
    settings = [f"--set=run.root={tmp_path}", "--set=run.iterations=2", f"--set=model.path={folder}", *TINY, *FAST]
    done = knowrl("run", "--config=cpu", *settings, home=home, check=0, PREFECT_API_URL=prefect_server)
    assert "1 (warm-up)" in done.stdout
    paths = RunPaths(tmp_path, "cpu")
    warmed, updated = (read_manifest(paths.stage(StageKey(n, "update"))).metrics for n in (1, 2))
    assert warmed["steps"] == 100  # 100 seeds in four views, four times, 16 a step
    assert updated["steps"] >= 1
    rows = read_table(paths.file(StageKey(2, "consensus"), "consensus.parquet"), ConsensusRecord)
    taught = read_table(paths.file(StageKey(2, "classify"), "teacher.parquet"), VerdictRecord)
    assert {row.task_id for row in taught} == {row.task_id for row in rows}
    assert {row.view for row in taught} == {f"channel-{draw}" for draw in range(4)}  # consensus.reward.channel_draws
    assert {row.label for row in rows if row.trained} == {"feasible", "infeasible"}
    assert all(row.share >= 0.75 for row in rows if row.trained)
