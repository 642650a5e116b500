"""What ``run.root`` means: a folder, or a place in an object store with a working copy here."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from knowrl_core.errors import RunLockedError
from knowrl_core.places import expanded
from knowrl_core.storage.files import write_atomic
from knowrl_core.storage.layout import RunPaths
from knowrl_core.storage.lock import Holder, RunLock, is_locked, read_holder
from knowrl_core.storage.mirror import Mirror
from knowrl_core.storage.objects import ObjectStore
from knowrl_core.storage.remote_lock import RemoteLock, is_held, read_remote_holder

COPIES = "KNOWRL_WORKING_COPIES"
"""Environment variable: the folder for working copies, in the user's cache otherwise."""


def is_url(root: str) -> bool:
    """Whether a root is no local folder."""
    return "://" in root


def local_root(root: str) -> Path:
    """The folder that holds the runs of a root, or their working copies."""
    if not is_url(root):
        return expanded(root).absolute()
    url = ObjectStore(root).url
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    copies = expanded(os.environ.get(COPIES) or platformdirs.user_cache_path("knowrl") / "copies").absolute()
    name = url.removeprefix("s3://").replace("/", "-")[:80]
    return copies / f"{name}-{hashlib.sha256(f'{endpoint} {url}'.encode()).hexdigest()[:12]}"


def run_paths(root: str, name: str) -> RunPaths:
    """A run in a root.

    Raises:
        InputError: The root is a URL that is not supported.
    """
    folder = local_root(root)
    if not is_url(root):
        return RunPaths(folder, name)
    return RunPaths(folder, name, remote=Mirror(ObjectStore(root).below(name), folder / name))


def runs_in(root: str) -> list[RunPaths]:
    """All runs of a root, by name. Those of an object store are looked up there."""
    if is_url(root):
        return [look(paths) for paths in (run_paths(root, name) for name in ObjectStore(root).folders())]
    folder = local_root(root)
    return [RunPaths(folder, file.parent.name) for file in sorted(folder.glob("[!.]*/run.json"))]


@contextmanager
def writer_of(paths: RunPaths) -> Iterator[None]:
    """Be the one writer of a run; its working copy, if it is one, is made equal to the store first.

    Raises:
        RunLockedError: Another process is.
        StageError: The store cannot be reached.
    """
    paths.folder.mkdir(parents=True, exist_ok=True)
    local = RunLock(paths.lock_file)
    if paths.remote is None:
        with local:
            yield
        return
    with RemoteLock(paths.remote.store, local, _copy_id(paths.root)) as lock:
        paths.remote.lock = lock
        try:
            paths.remote.pull()
            yield
        finally:
            paths.remote.lock = None


def look(paths: RunPaths) -> RunPaths:
    """Get what there is to see of a run: all but checkpoints; nothing to do for a local root.

    A copy that a process on this machine writes to is what that process has, and is left alone.
    """
    if paths.remote is not None:
        if not paths.folder.exists():
            if not paths.remote.exists():
                return paths
            paths.folder.mkdir(parents=True)
        with suppress(RunLockedError), RunLock(paths.lock_file):
            paths.remote.pull(checkpoints=False)
    return paths


def is_running(paths: RunPaths) -> bool:
    """Whether some process writes to the run now."""
    return is_locked(paths.lock_file) if paths.remote is None else is_held(paths.remote.store)


def writer(paths: RunPaths) -> Holder | None:
    """Who writes to the run, as far as it is known; only to be asked of a run that is running."""
    return read_holder(paths.lock_file) if paths.remote is None else read_remote_holder(paths.remote.store)


def _copy_id(folder: Path) -> str:
    """Names the working copies of this folder; made when it is asked for first."""
    path = folder / ".copy-id"
    if not path.exists():
        # Two processes at once: one id stays, and the other's lock is known to be dead after a minute only.
        with suppress(FileNotFoundError):
            write_atomic(path, uuid.uuid4().hex)
    return path.read_text()
