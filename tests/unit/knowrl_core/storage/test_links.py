"""A run directory that came from somebody else may hold symbolic links: none is written through, none is followed."""

import os

import pytest

from knowrl_core.errors import ArtifactError, RunLockedError
from knowrl_core.storage.files import write_atomic
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.lock import RunLock
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.verify import inspect_run, verify_run


@pytest.fixture
def victim(tmp_path):
    file = tmp_path / "victim"
    file.write_text("mine")
    return file


def test_an_atomic_write_replaces_a_planted_temporary_link(victim, tmp_path):
    (tmp_path / ".run.json.tmp").symlink_to(victim)

    write_atomic(tmp_path / "run.json", "new")

    assert victim.read_text() == "mine"
    assert (tmp_path / "run.json").read_text() == "new"
    assert not (tmp_path / "run.json").is_symlink()


@pytest.mark.parametrize("durable", [True, False])
def test_an_atomic_write_replaces_a_link_in_its_place(durable, victim, tmp_path):
    (tmp_path / "run.json").symlink_to(victim)

    write_atomic(tmp_path / "run.json", "new", durable=durable)

    assert victim.read_text() == "mine"


def test_new_files_have_the_mode_that_the_umask_asks_for(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "run.json", "new")
    finally:
        os.umask(old)

    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o640


def test_a_lock_does_not_write_its_record_through_a_link(victim, tmp_path):
    (tmp_path / ".lock.json").symlink_to(victim)

    with RunLock(tmp_path / ".lock"):
        assert victim.read_text() == "mine"
        assert not (tmp_path / ".lock.json").is_symlink()
    assert victim.read_text() == "mine"


def test_a_lock_that_is_a_link_is_not_opened(victim, tmp_path):
    (tmp_path / ".lock").symlink_to(victim)

    with pytest.raises((OSError, RunLockedError)), RunLock(tmp_path / ".lock"):
        pass
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("look", [verify_run, inspect_run])
@pytest.mark.parametrize("place", ["iterations", "iterations/000", "iterations/000/generate/candidates.parquet"])
def test_a_run_with_a_link_is_refused(place, look, victim, tmp_path):
    paths = RunPaths(tmp_path / "runs", "copied")
    link = paths.folder / place
    link.parent.mkdir(parents=True)
    link.symlink_to(victim if "parquet" in place else tmp_path)

    with pytest.raises(ArtifactError) as caught:
        look(paths, [StageKey(0, "generate")])

    assert str(link) in caught.value.message
    assert "Remove it" in caught.value.hint


def test_the_directory_of_a_run_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "big").symlink_to(tmp_path / "disk")

    assert verify_run(RunPaths(tmp_path / "runs", "big"), [StageKey(0, "generate")]).problem is None


@pytest.mark.parametrize("path", ["", ".", "..", "/etc/passwd", "a/../b", "a//b", "a/./b", "a/", "a\0b"])
def test_a_reference_names_a_file_below_the_run(path):
    with pytest.raises(ValueError, match="inside the run directory"):
        FileRef(path=path, sha256="x")
