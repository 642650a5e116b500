"""``knowrl report`` as it is typed."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from knowrl_core.errors import ArtifactError, InputError
from knowrl_core.storage.layout import EVALUATE, StageKey
from tests.unit.knowrl_core.report.made import MadeRun


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        MadeRun(tmp_path / "runs", name, planned=0, settings=["tracking.enabled=false"]).iteration(0, (0.5, 0.5)).end()
    return lambda *arguments: CliRunner().invoke(app, ["report", *arguments])


def test_one_run_and_several(report, tmp_path):
    done = report("one")
    assert done.exit_code == 0, done.output
    assert "one: Base model only. Balanced accuracy on the probe is 0.500" in done.stdout
    assert "<h1>one</h1>" in (tmp_path / "one-report.html").read_text()
    assert report("one", str(tmp_path / "runs/two"), "--out", "both.html").exit_code == 0
    assert "<h1>one · two</h1>" in (tmp_path / "both.html").read_text()


def test_json_writes_no_file_unless_asked_to(report, tmp_path):
    found = json.loads(report("two", "--json").stdout)
    assert found["runs"][0]["verdict"]["headline"] == "Base model only"
    assert not list(tmp_path.glob("*.html"))
    json.loads(report("two", "--json", "--out", "two.html").stdout)
    assert (tmp_path / "two.html").exists()


def test_what_is_wrong_is_said(report, tmp_path):
    for arguments, what in (
        (["nobody"], "no run 'nobody'"),
        (["one", "one"], "expected each run once"),
        (["one", "--out", "no/such/folder.html"], "cannot be written"),
    ):
        error = report(*arguments).exception
        assert isinstance(error, InputError)
        assert what in error.message
    (tmp_path / "runs/one" / "iterations/000/evaluate/manifest.json").write_text("{")
    error = report("one").exception
    assert isinstance(error, ArtifactError)
    assert str(StageKey(0, EVALUATE)) in error.message


def test_a_copied_run_does_not_say_where_the_password_of_mlflow_goes(report, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.headers.get("Authorization"))
            self.send_error(404)

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}"
    MadeRun(tmp_path / "runs", "foreign", planned=0, settings=[f"tracking.uri={uri}"]).iteration(0, (0.5, 0.5)).end()

    done = report("foreign")
    server.shutdown()
    server.server_close()

    assert done.exit_code == 0, done.output
    assert "not logged to MLflow" in done.output
    assert "tracking.uri" in done.output
    assert asked == []
    assert (tmp_path / "foreign-report.html").exists()
