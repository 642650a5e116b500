"""Start a run from any point of another, sharing its past.

The stages before that point are hard links: no byte is copied, no run can alter the other's directory, and each prunes,
repairs and is removed by itself. Committed files are never written again, so that a shared one cannot change.
"""

import errno
import os
import shutil
from pathlib import Path

from knowrl_core.config import Config
from knowrl_core.errors import ArtifactError, InputError, StageError
from knowrl_core.storage.files import fsync_tree
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.roots import run_paths, runs_in
from knowrl_core.storage.run_file import ForkedFrom, RunFile
from knowrl_core.storage.verify import refuse_links
from tasks.starting import check_start, keys_of

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
"""What file systems say that have no hard links, or no further one."""


def fork_run(old: RunPaths, at: StageKey, config: Config, pins: dict[str, str]) -> str:
    """Make a run whose stages before a point are those of another.

    Nothing is computed; the new run goes on from there like any other.

    Args:
        old: The other run.
        at: The first stage that is done anew.
        config: The new run's config; ``run.name`` is its name, in the root of the other one.
        pins: sha256 of what all history depends on, as the config names it now.

    Returns:
        How it has its past, in words. A file system without hard links makes copies; an object store, too, by itself.

    Raises:
        InputError: The point, the name or the config does not fit.
        ArtifactError: A shared manifest is broken.
        StageError: The disk is full, or the other run pruned just what was about to be shared.
    """
    past, new = RunFile.read(old), run_paths(old.location, config.run.name)
    if new.folder.exists() or (new.remote is not None and new.remote.exists()):
        raise InputError(f"{new.shown} exists, expected a new name", hint="Choose another name for the fork.")
    file = RunFile.create(config, past.pins)
    file.forked_from = ForkedFrom(run=past.name, run_id=past.run_id, at=str(at))
    file.changes = [change for change in past.changes if change.applies_before(at)]
    file.config = past.config_at(at)
    file.config["run"]["name"] = config.run.name  # no change worth a record
    file.check_past(config, pins, lambda key: key.place < at.place and old.stage(key).exists())
    keys = keys_of(config)
    refuse_links(old)  # copying a tree would follow them
    check_start(old, keys, at)
    shared = keys[: keys.index(at)]
    file.record_changes(config, str(at))
    if new.remote is not None and old.remote is not None:
        old.remote.copy_to(new.remote, [old.relative(old.stage(key)) for key in shared], file.text())
        return "has copies of its stages before that, made by the object store"
    work = RunPaths(old.root, f".{config.run.name}.fork")
    shutil.rmtree(work.folder, ignore_errors=True)  # what a killed fork left
    linked = True
    try:
        work.folder.mkdir()
        for key in shared:
            linked = _share(old.stage(key), work.stage(key)) and linked
        file.write(work)
        fsync_tree(work.folder)
        work.folder.rename(new.folder)
    except OSError as error:
        raise StageError(
            f"cannot fork {old.folder} to {new.folder}: {error}",
            hint="Make room, or try again if that run is pruning its checkpoints just now.",
        ) from error
    finally:
        shutil.rmtree(work.folder, ignore_errors=True)
    return f"{'shares' if linked else 'has copies (no hard links here) of'} its stages before that"


def _share(source: Path, target: Path) -> bool:
    """Link a folder's files below another one; False if a file had to be copied."""
    linked = True

    def share(old: str, new: str) -> str:
        nonlocal linked
        try:
            os.link(old, new, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(old, new)
            linked = False
        return new

    shutil.copytree(source, target, copy_function=share)
    return linked


def forks_of(paths: RunPaths) -> list[str]:
    """Names of the runs in the same root that were forked from a run.

    Raises:
        InputError: There is no such run.
        ArtifactError: Its ``run.json`` is broken.
    """
    own = RunFile.read(paths)
    found = []
    for run in runs_in(paths.location):
        try:
            other = RunFile.read(run)
        except (ArtifactError, InputError):
            continue
        if other.forked_from is not None and other.forked_from.run_id == own.run_id:
            found.append(run.name)
    return found
