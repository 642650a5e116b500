"""A run on a real terminal, interrupted and gone on with; watched from other processes, and in Prefect."""

import json
import subprocess

import pytest
from prefect.artifacts import Artifact
from prefect.settings import PREFECT_API_URL, temporary_settings

from knowrl_core.report.note import NAME
from knowrl_core.storage.layout import RunPaths, StageKey
from tests.e2e.helpers import KNOWRL, TINY, environment_of, in_stage, knowrl
from tests.e2e.terminal import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
UPDATE = StageKey(1, "update")
BAR = "━━━━"


def test_a_run_on_a_terminal(tmp_path, home, prefect_server):
    paths, server = RunPaths(tmp_path, "smoke"), {"PREFECT_API_URL": prefect_server}
    place = f"--set=run.root={tmp_path}"
    options = ["--config=smoke", place, "--set=run.iterations=2", *TINY]
    first = Terminal("run", *options, home=home, **server)
    begun = in_stage(paths, UPDATE)
    assert first.run(until=lambda: begun() and "update" in first.text.rpartition("run  ")[2]) is None, first.text
    assert first.screen.cursor.hidden
    assert "smoke   iteration 1 of 2" in first.text
    assert "5/12 stages" in first.text

    first.type(b"\x03")

    assert first.run() == 130, first.text
    assert not first.screen.cursor.hidden
    assert BAR not in first.text, "the view is left behind"
    assert "interrupted; what is committed stands" in first.text
    assert "Traceback" not in first.text
    assert not (paths.folder / NAME).exists()
    ended = knowrl("status", "smoke", place, "--watch", home=home, check=1)
    assert "interrupted, 5 of 12 stages committed" in ended.stdout

    again = Terminal("resume", "smoke", place, home=home, **server)
    assert again.run(until=lambda: BAR in again.text) is None, again.text
    watching = subprocess.Popen(
        [*KNOWRL, "status", "smoke", place, "--watch", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment_of(home),
    )
    other = Terminal("status", "smoke", place, "--watch", home=home)
    assert again.run() == 0, again.text
    told = [json.loads(line) for line in watching.communicate(timeout=120)[0].splitlines()]

    _reward_and_truth([row for text in again.seen for row in text.splitlines()])
    assert not again.screen.cursor.hidden
    assert BAR not in again.text, "the view is left behind"
    assert "best balanced accuracy on the probe" in again.text
    assert watching.returncode == 0
    assert told[-1]["state"] == "completed"
    assert told[-1]["stage"] is told[-1]["holder"] is None
    assert told[0]["holder"]["pid"] == again.process.pid
    assert any(item["stage"] and item["stage"]["stage"] for item in told)
    assert other.run() == 0
    assert any(BAR in text and f"process {again.process.pid} on " in text for text in other.seen)
    assert "completed, 12 of 12 stages committed" in other.text
    assert not other.screen.cursor.hidden
    _artifacts(prefect_server)


def _reward_and_truth(rows):
    """Iteration 2 was seen with its reward and, when that was measured, the truth and its interval."""
    second = [row.split() for row in rows if row.split()[:1] == ["2"]]
    rewarded = [row for row in second if row[1] != "-"]
    assert rewarded, second
    assert all("." in row[2] for row in rewarded), "a reward stood alone"
    assert any(row[3].startswith("[") for row in rewarded), "no interval"


def _artifacts(server):
    with temporary_settings({PREFECT_API_URL: server}):
        kinds = ("progress", "stages", "iterations")
        progress, stages, table = (Artifact.get(f"knowrl-smoke-{kind}") for kind in kinds)
    assert progress.data == 100.0
    assert "12 of 12 stages" in progress.description
    rows = json.loads(stages.data)
    assert [(row["iteration"], row["stage"]) for row in rows[-2:]] == [(2, "update"), (2, "evaluate")]
    assert len(rows) == 12
    assert {row["state"] for row in rows} == {"Completed"}
    assert all(row["seconds"] >= 0 and row["rows"] > 0 for row in rows)
    assert "(truth: balanced_accuracy" in next(row["key metrics"] for row in rows if row["stage"] == "consensus")
    assert [row["iter"] for row in json.loads(table.data)] == ["0", "1", "2"]
