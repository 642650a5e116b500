"""The whole loop on a real vLLM server, which is killed while it classifies."""

import re

import psutil
import pytest

from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.schemas import Candidate, VerdictRecord
from knowrl_core.storage.tables import read_table
from tests.e2e.helpers import belonging, in_stage, start, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.slow, pytest.mark.vllm]

SMALL = [
    "--set=run.iterations=2",
    "--set=evaluation.probe_limit=12",
    "--set=introspection.calls_per_label=2",
    "--set=introspection.max_candidates=10",
    "--set=evaluation.frozen_limit=4",
    "--set=tracking.enabled=false",
]
KILLED_IN = StageKey(1, "classify")


def servers(pid):
    """The processes of vLLM that belong to a run, without its guardian."""
    found = []
    for process in belonging(pid):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if ("vllm.entrypoints" in name or "EngineCore" in name) and "guardian" not in name:
            found.append(process)
    return found


def test_the_loop_runs_on_vllm_and_outlives_its_server(tmp_path, home, prefect_server, vllm_config):
    paths = RunPaths(tmp_path, "cpu")
    engine = [
        "--set=engine.kind=vllm",
        "--set=engine.dtype=fp32",
        f"--set=engine.vllm.python={vllm_config.vllm.python}",
        "--set=engine.vllm.args=[--enforce-eager]",
        "--set=engine.vllm.concurrency=1",
    ]
    command = ["run", "--config=cpu", f"--set=run.root={tmp_path}", *SMALL, *engine]
    process = start(*command, home=home, log=tmp_path / "log", PREFECT_API_URL=prefect_server)
    wait_for(in_stage(paths, KILLED_IN), process=process, timeout=1200, what=str(KILLED_IN))
    killed = servers(process.pid)
    assert killed
    for server in killed:
        server.kill()
    assert not paths.stage(KILLED_IN).exists()
    assert process.wait(1500) == 0, (tmp_path / "log").read_text()
    assert not servers(process.pid)

    worker = (paths.logs / "worker.log").read_text()
    differences = [float(found) for found in re.findall(r"log-probabilities differ by (\S+) in the mean", worker)]
    assert min(differences) < 1e-3
    for iteration in (1, 2):
        kept = [
            item
            for item in read_table(paths.file(StageKey(iteration, "generate"), "candidates.parquet"), Candidate)
            if item.kept
        ]
        rows = read_table(paths.file(StageKey(iteration, "classify"), "verdicts.parquet"), VerdictRecord)
        assert {row.engine for row in rows} == {"vllm/fp32"}
        assert sorted((row.task_id, row.sample) for row in rows) == sorted(
            (item.id, j) for item in kept for j in range(8)
        )
    # The first server, one after the kill, and the weights of both updates (in place, or by a start).
    assert len(differences) >= 3
    assert "vllm.log" in {path.name for path in paths.logs.iterdir()}
