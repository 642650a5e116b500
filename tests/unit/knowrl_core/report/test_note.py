"""Progress that other processes read: what is in the way of it does no harm, and what it says is not trusted."""

import json
import os

import pytest

from knowrl_core.report import StageProgress
from knowrl_core.report import note as notes
from knowrl_core.report.note import MOST, NAME, ProgressNote, read_progress
from knowrl_core.storage.layout import RunPaths

NOW = StageProgress(stage="002/update", phase="train", done=3, total=9, seconds=12.5, tokens_per_second=70.0)
GOOD = {**NOW.model_dump(), "written": 1.0}


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "r").mkdir()
    return RunPaths(tmp_path, "r")


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(notes, "EVERY", 0.01)


def until(condition):
    for _ in range(3_000):
        if condition():
            return
        os.sched_yield()
        notes.time.sleep(0.01)
    raise AssertionError("it did not come")


def test_it_is_read_elsewhere_and_gone_at_the_end(paths, often):
    (paths.folder / NAME).write_text("what a killed attempt left")
    with ProgressNote(paths, lambda: NOW):
        until(lambda: read_progress(paths))
        found = read_progress(paths)
    assert StageProgress.model_validate(found.model_dump(exclude={"written"})) == NOW
    assert read_progress(paths) is None
    assert not list(paths.folder.iterdir())


@pytest.mark.parametrize("name", [NAME, f"{NAME}.new"])
def test_a_link_in_its_place_is_replaced_and_not_followed(paths, often, tmp_path, name):
    target = tmp_path / "target"
    target.write_text("mine")
    (paths.folder / name).symlink_to(target)
    with ProgressNote(paths, lambda: NOW):
        until(lambda: read_progress(paths))
    assert target.read_text() == "mine"


def test_a_link_is_not_read(paths, tmp_path):
    (tmp_path / "target").write_text(json.dumps(GOOD))
    (paths.folder / NAME).symlink_to(tmp_path / "target")
    assert read_progress(paths) is None


def test_a_pipe_and_a_folder_are_not_read(paths):
    os.mkfifo(paths.folder / NAME)
    assert read_progress(paths) is None
    (paths.folder / NAME).unlink()
    (paths.folder / NAME).mkdir()
    assert read_progress(paths) is None


def test_a_folder_that_cannot_be_written_is_no_error(paths, often):
    (paths.folder / NAME).mkdir()
    (paths.folder / NAME / "in the way").touch()
    asked = []
    with ProgressNote(paths, lambda: asked.append(1) or NOW):
        until(lambda: len(asked) > 2)
    assert (paths.folder / NAME / "in the way").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "../../etc"},
        {"stage": "002/[red]x"},
        {"phase": "[red]"},
        {"phase": "\x1b[31m"},
        {"done": -1},
        {"total": 10**30},
        {"seconds": float("nan")},
        {"tokens_per_second": float("inf")},
        {"written": "now"},
        {"padding": "x" * MOST},
    ],
)
def test_what_is_no_progress_is_none(paths, change):
    (paths.folder / NAME).write_text(json.dumps(GOOD))
    assert read_progress(paths) is not None
    (paths.folder / NAME).write_text(json.dumps({**GOOD, **change}))
    assert read_progress(paths) is None


@pytest.mark.parametrize("content", [b"", b"null", b"[" * 4_000, b"\xff\xfe"])
def test_no_json_is_none(paths, content):
    (paths.folder / NAME).write_bytes(content)
    assert read_progress(paths) is None
