"""Progress that other processes can read: a small file beside the lock, or an object where the root is a store.

It is a help for whoever watches and no artifact: nothing depends on it, it is gone when the run ends, and what is read
from it is not trusted.
"""

import json
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self

from pydantic import Field, ValidationError

from knowrl_core.errors import KnowrlError, StageError
from knowrl_core.report.meter import StageProgress
from knowrl_core.storage.layout import RunPaths

NAME: Final = ".progress.json"
MOST: Final = 4_096
"""Bytes above which such a file is none."""
EVERY: Final = 1.0
"""Seconds between two notes in a folder."""
EVERY_REMOTE: Final = 15.0
"""Seconds between two notes in an object store."""


class NotedProgress(StageProgress):
    """Progress with the time of its note."""

    written: Annotated[float, Field(ge=0.0, le=1e12)]
    """Seconds since 1970, by the clock of the machine that does the stage."""


class ProgressNote:
    """Notes the progress of a run from a thread, as long as the context lasts.

    Args:
        paths: The run; the caller is its writer.
        read: Gives the progress now.
    """

    def __init__(self, paths: RunPaths, read: Callable[[], StageProgress | None]) -> None:
        self._paths, self._read = paths, read
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="knowrl-progress", daemon=True)

    def __enter__(self) -> Self:
        _remove(self._paths.folder / NAME)  # of an attempt that was killed
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(5.0)  # an object store may hang; the thread ends with the process, then
        _remove(self._paths.folder / NAME)
        if self._paths.remote is not None:
            with suppress(StageError):
                self._paths.remote.store.delete([NAME])

    def _work(self) -> None:
        remote, sent = self._paths.remote, -EVERY_REMOTE
        while not self._ended.wait(EVERY):
            progress = self._read()
            if progress is None:
                continue
            text = json.dumps({**progress.model_dump(), "written": time.time()})
            _replace(self._paths.folder / NAME, text.encode())
            if remote is not None and time.monotonic() - sent >= EVERY_REMOTE:
                sent = time.monotonic()
                with suppress(StageError):  # the network; the stages will say so
                    remote.store.put(NAME, text.encode())


def read_progress(paths: RunPaths) -> NotedProgress | None:
    """What the process that does a run noted last; None if there is nothing that can be read.

    Args:
        paths: The run.
    """
    notes = [_read(paths.folder / NAME)]
    if paths.remote is not None:  # the one in the working copy may be what a killed process left
        with suppress(StageError):
            found = paths.remote.store.read(NAME, most=MOST)
            notes.append(found[0] if found else None)
    parsed = [note for note in map(_parse, notes) if note is not None]
    return max(parsed, key=lambda note: note.written, default=None)


def _parse(content: bytes | None) -> NotedProgress | None:
    if content is None:
        return None
    try:
        return NotedProgress.model_validate_json(content)
    except (ValidationError, KnowrlError):
        return None


def _replace(path: Path, content: bytes) -> None:
    """Replace a file as a whole; without room or right to it, or if somebody put something in its way, it is left."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        # Exclusive: a link that somebody puts there is not followed.
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        beside.replace(path)
    except OSError:
        _remove(beside)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        # Not blocking: it could be a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = os.read(descriptor, MOST + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return content if len(content) <= MOST else None
