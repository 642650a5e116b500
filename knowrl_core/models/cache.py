"""Where models that KnowRL builds itself are kept, and how two processes share that place."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from knowrl_core.errors import InputError
from knowrl_core.models.folder import hash_folder
from knowrl_core.places import expanded
from knowrl_core.storage.files import fsync_folder, fsync_tree

log = logging.getLogger(__name__)

RECORD = "knowrl.sha256"
"""File in a built folder that holds the hash of the folder's model files."""


def cache_root() -> Path:
    """``$KNOWRL_CACHE`` if it is set, else the user's cache directory."""
    override = os.environ.get("KNOWRL_CACHE")
    return expanded(override) if override else Path(platformdirs.user_cache_dir("knowrl", appauthor=False))


def build_once(name: str, build: Callable[[Path], None]) -> tuple[Path, str]:
    """The folder ``<cache>/models/<name>``, built if it is missing or damaged.

    The folder is built beside its place, fsynced and renamed, under a lock: another process sees all of it or nothing.

    Args:
        name: Folder name; it should change whenever ``build`` would write something else.
        build: Writes the model files into an empty folder.

    Returns:
        The folder and the hash of its model files.

    Raises:
        InputError: The cache cannot be written.
    """
    parent = cache_root() / "models"
    final = parent / name
    try:
        # A good copy needs no write access, so that the cache may be shared read-only.
        if digest := _verified(final):
            return final, digest
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f"{name}.lock"):
            if digest := _verified(final):
                return final, digest
            if final.exists():
                log.warning("the cached model in %s is damaged or incomplete; it is built again", final)
                shutil.rmtree(final)
            return final, _build(final, build)
    except OSError as error:
        raise InputError(
            f"the model cache {parent} cannot be used: {error.strerror or error}",
            hint="Free space or permissions there, or point KNOWRL_CACHE to a folder that can be written.",
        ) from error


def _verified(folder: Path) -> str:
    """The folder's hash if it equals the recorded one, else an empty string."""
    record = folder / RECORD
    if not record.is_file():
        return ""
    digest = hash_folder(folder)
    return digest if record.read_text(encoding="ascii", errors="replace").strip() == digest else ""


def _build(final: Path, build: Callable[[Path], None]) -> str:
    scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp makes it private; a cache may be shared
        build(scratch)
        digest = hash_folder(scratch)
        (scratch / RECORD).write_text(digest + "\n", encoding="ascii")
        for file in scratch.iterdir():
            file.chmod(0o644)  # as above, for what safetensors writes
        fsync_tree(scratch)
        scratch.rename(final)
        fsync_folder(final.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return digest
