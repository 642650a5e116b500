"""A run's files as an object store has them, read without keeping them."""

import errno
import hashlib
from pathlib import Path

from knowrl_core.storage.mirror import Mirror


class StoredFiles:
    """What an object store has in the places of a working copy's files; all of it is read, none of it kept.

    Args:
        mirror: The run.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._there = mirror.store.find()

    def shown(self, file: Path) -> str:
        """A file's place for people."""
        return f"{self._mirror.store.url}/{self._name(file)}"

    def size(self, file: Path) -> int:
        """Bytes of an object.

        Raises:
            OSError: It is missing.
        """
        name = self._name(file)
        if name not in self._there:
            raise FileNotFoundError(errno.ENOENT, "no such object")
        return self._there[name].size

    def sha256(self, file: Path) -> str:
        """The sha256 of an object."""
        digest = hashlib.sha256()
        for block in self._mirror.store.blocks(self._name(file)):
            digest.update(block)
        return digest.hexdigest()

    def _name(self, file: Path) -> str:
        return file.relative_to(self._mirror.folder).as_posix()
