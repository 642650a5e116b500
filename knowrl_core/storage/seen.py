"""Which large files were hashed already and cannot have changed since.

Checkpoints are gigabytes, and hashing them on every start would cost minutes. A file whose inode, size, and times of
change down to the nanosecond are those that it had when its hash was taken has not been written to: the system sets
the time of the last change (ctime) itself, and no program can set it back. What this does not see is a disk that
loses bits by itself; ``knowrl verify`` reads everything.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from knowrl_core.storage.files import read_small, sha256_file, write_atomic

LARGE: Final = 1 << 24
"""Bytes from which on a file is worth remembering; smaller ones are hashed every time."""

SETTLED: Final = 2_000_000_000
"""Nanoseconds without a change before a file is remembered: two changes within one tick of the clock look like one."""


class SeenFiles:
    """Hashes of large files by what the system says of them.

    Args:
        path: File that keeps them between starts; None remembers nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._before = _read(path)
        self._now: dict[str, list[object]] = {}

    def shown(self, file: Path) -> str:
        """A file's place for people."""
        return str(file)

    def size(self, file: Path) -> int:
        """Bytes of a file.

        Raises:
            OSError: It is missing.
        """
        return file.stat().st_size

    def sha256(self, file: Path) -> str:
        """The sha256 of a file, from memory if it cannot have changed.

        Raises:
            OSError: It is missing or cannot be read.
        """
        stat = file.stat()
        if self._path is None or stat.st_size < LARGE:
            return sha256_file(file)
        mark: list[object] = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        name = os.path.relpath(file, self._path.parent)
        known = self._before.get(name)
        settled = abs(time.time_ns() - stat.st_ctime_ns) >= SETTLED  # before the file is read
        digest = str(known[-1]) if known is not None and known[:-1] == mark else sha256_file(file)
        if settled:
            self._now[name] = [*mark, digest]
        return digest

    def keep(self) -> None:
        """Write down what was seen; without room it is hashed again the next time."""
        if self._path is None or self._now == self._before:
            return
        with suppress(OSError):
            write_atomic(self._path, json.dumps(self._now), durable=False)


def _read(path: Path | None) -> dict[str, list[object]]:
    try:
        content = json.loads(read_small(path)) if path is not None else {}
    except (OSError, ValueError):
        return {}
    items = content.items() if isinstance(content, dict) else ()
    return {str(name): mark for name, mark in items if isinstance(mark, list) and mark}
