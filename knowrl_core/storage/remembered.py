"""What this user has named at a command line of this machine: a record outside of all runs.

With it a run of one's own goes on without a question, and one that came from elsewhere does not choose programs and
hosts (:mod:`knowrl_core.config.machine`).
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import platformdirs

from knowrl_core.config.machine import MACHINE_FIELDS, Setting
from knowrl_core.storage.files import read_small, write_atomic


def record_file() -> Path:
    """The file: in the user's folder for state, which no run and no shared cache reaches."""
    return platformdirs.user_state_path("knowrl", appauthor=False) / "machine.json"


def remembered() -> frozenset[Setting]:
    """Fields and values; none where the record is missing, broken, or could have been written by another user."""
    path = record_file()
    try:
        status = path.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return frozenset()
        data = json.loads(read_small(path))
        return frozenset((str(field), str(text)) for field in MACHINE_FIELDS for text in data.get(field, ()))
    except (OSError, ValueError, TypeError, AttributeError):
        return frozenset()


def remember(settings: Iterable[Setting]) -> None:
    """Add to the record. Where it cannot be written, the question is asked again."""
    known = remembered()
    new = known | set(settings)
    if new == known:
        return
    path = record_file()
    text = json.dumps({field: sorted(value for name, value in new if name == field) for field in MACHINE_FIELDS})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, text, durable=False)
        path.chmod(0o600)
