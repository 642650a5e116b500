"""A run is removed where it is, also where its folder is a link to another disk."""

import pytest

from flows.cli.remove import remove
from knowrl_core.config import load_config
from knowrl_core.errors import InputError
from knowrl_core.storage.layout import RunPaths
from knowrl_core.storage.run_file import RunFile


@pytest.mark.parametrize("linked", [False, True])
def test_nothing_is_left(linked, tmp_path):
    root, disk = tmp_path / "runs", tmp_path / "disk"
    root.mkdir()
    if linked:
        (disk / "smoke").mkdir(parents=True)
        (root / "smoke").symlink_to(disk / "smoke")
    else:
        (root / "smoke").mkdir()
    RunFile.create(load_config("smoke"), {}).write(RunPaths(root, "smoke"))
    remove(str(root / "smoke"), yes=True)
    assert list(root.iterdir()) == []
    assert not disk.exists() or list(disk.iterdir()) == []
    with pytest.raises(InputError, match=r"got no run\.json"):
        remove(str(root / "smoke"), yes=True)
