"""Durable files: hashes, fsync, atomic replacement."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

SMALL: Final = 64 * 1024 * 1024
"""Bytes above which a record (a manifest, a run's record, a model's config) is none."""


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_small(path: Path, most: int = SMALL) -> bytes:
    """The bytes of a file that must be small, so that one that is not fills no memory.

    Raises:
        OSError: It is missing, cannot be read, or has more than ``most`` bytes (``EFBIG``).
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes, expected less", str(path))
    return content


def numbered_lines(stream: BinaryIO, most: int) -> Iterator[tuple[int, bytes]]:
    """Lines, numbered from 1. One of more than ``most`` bytes comes cut to one more, and its rest is skipped."""
    number = 0
    while raw := stream.readline(most + 1):
        number += 1
        rest = raw
        while len(rest) > most and not rest.endswith(b"\n"):
            rest = stream.readline(most + 1)
        yield number, raw


def sha256_json(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form (sorted keys, no white space)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fsync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    """Force a folder's entries to the disk (a rename is durable only after this)."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Force everything below a folder to the disk, entries last."""
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            fsync_file(Path(folder, name))
        fsync_folder(Path(folder))


def write_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file as a whole: readers see the old text or the new one, also after a crash.

    Args:
        path: The file.
        text: Its new content.
        durable: Also after a power failure. Without it such a failure may leave anything, for less time.

    Raises:
        OSError: It cannot be written; the old one stands.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # what a killed attempt left, or a link that leads elsewhere
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        fsync_folder(path.parent)
