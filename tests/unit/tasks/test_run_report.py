"""The report at the end of a run."""

from types import SimpleNamespace

from knowrl_core.storage.layout import EVALUATE, EXTRINSIC_TABLE, StageKey
from tasks.run_report import REPORT, report_run
from tests.unit.knowrl_core.report.made import MadeRun


def context(run, warnings):
    tracker = SimpleNamespace(attach=lambda file: f"http://mlflow/{file.name}")
    return SimpleNamespace(
        paths=run.paths, stopped=False, tracker=tracker, reporter=SimpleNamespace(warning=warnings.append)
    )


def test_it_stands_in_the_folder_and_says_how_the_run_ended(tmp_path):
    run, warnings = MadeRun(tmp_path, planned=1).iteration(0, (0.5, 0.5)).iteration(1, (0.9, 0.9)), []
    written = report_run(context(run, warnings))
    assert warnings == []
    assert (written.link, written.verdict.headline) == ("http://mlflow/report.html", "Better than the base model")
    assert "It is complete: 1 of 1 iterations" in (run.paths.folder / REPORT).read_text(), "its attempt has no end yet"


def test_a_report_that_fails_is_a_warning(tmp_path):
    run, warnings = MadeRun(tmp_path, planned=0).iteration(0, (0.5, 0.5)), []
    (run.paths.folder / REPORT).mkdir()
    assert report_run(context(run, warnings)) is None
    run.paths.file(StageKey(0, EVALUATE), EXTRINSIC_TABLE).write_bytes(b"")
    assert report_run(context(run, warnings)) is None
    assert [("cannot be written" in text, "expected" in text) for text in warnings] == [(True, False), (False, True)]
    assert all("The run is done; try `knowrl report made`" in text for text in warnings)
