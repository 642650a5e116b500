"""What a failing stage says: which stage, what went wrong, and with which exit code."""

import errno

import pytest

from knowrl_core.errors import ArtifactError, InputError, StageError, WorkerDiedError
from knowrl_core.storage.layout import StageKey
from tasks.stage import _explain

KEY = StageKey(7, "update")


@pytest.mark.parametrize(
    ("error", "kind", "message", "hint"),
    [
        (StageError("no", hint="do"), StageError, "stage 007/update: no", "do"),
        (WorkerDiedError("gone"), WorkerDiedError, "stage 007/update: gone", ""),
        (ArtifactError("bad", hint="--repair"), ArtifactError, "stage 007/update: bad", "--repair"),
        # The run exists by now: exit code 2 would say that nothing was created.
        (InputError("wrong"), StageError, "stage 007/update: wrong", ""),
        (OSError(errno.ENOSPC, "No space left", "f"), StageError, "stage 007/update: No space left: f", "Free some"),
        (PermissionError(errno.EACCES, "Denied", "f"), StageError, "stage 007/update: Denied: f", ""),
        (ZeroDivisionError("zero"), StageError, "stage 007/update: ZeroDivisionError: zero", "KNOWRL_TRACEBACK=1"),
    ],
)
def test_an_error_names_its_stage(error, kind, message, hint):
    explained = _explain(error, KEY)
    assert type(explained) is kind
    assert explained.message == message
    assert explained.hint.startswith(hint)
    assert explained.hint or not hint
