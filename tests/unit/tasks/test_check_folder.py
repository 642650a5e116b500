"""What a start that was killed early leaves in the run's folder does not stand in the way of the next."""

import pytest

from knowrl_core.errors import InputError
from knowrl_core.storage import lock
from knowrl_core.storage.layout import RunPaths
from knowrl_core.storage.lock import RunLock
from tasks.prepare import check_folder


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is done."""


def die(*_args, **_options):
    raise Killed


def test_a_start_killed_at_any_moment_before_its_record(tmp_path, monkeypatch):
    paths = RunPaths(tmp_path, "smoke")
    paths.folder.mkdir()
    check_folder(paths)
    monkeypatch.setattr("pathlib.Path.replace", die)
    with pytest.raises(Killed), RunLock(paths.lock_file):
        pass
    monkeypatch.undo()
    assert sorted(path.name for path in paths.folder.iterdir()) == ["..lock.json.tmp", ".lock"]
    check_folder(paths)
    with RunLock(paths.lock_file):
        check_folder(paths)
    assert not lock.is_locked(paths.lock_file)
    (paths.folder / "..thesis").touch()
    with pytest.raises(InputError, match=r"'\.\.thesis' and no run.json"):
        check_folder(paths)
