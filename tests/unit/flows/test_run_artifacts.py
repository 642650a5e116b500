"""A run in the Prefect UI. What a server makes of it is tested with a real one, end to end."""

from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.run_artifacts import RunArtifacts, stage_rows
from knowrl_core.storage.layout import RunPaths
from knowrl_core.worker.process import free_port
from tasks.reporter import OpenedRun, Reporter
from tests.unit.flows.test_view import standing


class Heard(Reporter):
    def __init__(self):
        self.warnings = []

    def warning(self, text):
        self.warnings.append(text)


def test_stages_that_are_done_under_way_or_failed():
    now = standing(evaluated=1, iterations=3)
    rows = stage_rows(now, "002/evaluate", None)
    assert [(row["iteration"], row["stage"]) for row in rows[:3]] == [(0, "generate"), (0, "evaluate"), (1, "generate")]
    assert [row["state"] for row in rows] == ["Completed"] * 11 + ["Running"]
    assert stage_rows(now, None, "002/evaluate")[-1]["state"] == "Failed"
    assert len(stage_rows(now, None, None)) == 11


def test_a_server_that_is_away_is_one_warning(tmp_path):
    heard, now = Heard(), standing(evaluated=1, iterations=1)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}), RunArtifacts(heard) as artifacts:
        artifacts.opened(OpenedRun(RunPaths(tmp_path, "r"), now.keys, now.history))
        for key in now.keys[-3:]:
            artifacts.begin(key)
            artifacts.advance(1, 2)
            artifacts.end(key, "done")
    assert len(heard.warnings) == 1
    assert "Prefect does not take the run's" in heard.warnings[0]
