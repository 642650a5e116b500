"""What processes leave each other word of, and when they end by themselves."""

import subprocess
import sys
import time

import pytest

from knowrl_core.errors import StageError, WorkerDiedError
from knowrl_core.rl.distributed import folder as words
from knowrl_core.rl.distributed.folder import RankFailure, first_failure, has_failure, write_failure
from knowrl_core.rl.distributed.launch import _error
from knowrl_core.worker.messages import Failure


def failure(cause, message):
    return RankFailure(cause=cause, failure=Failure(kind="StageError", message=message, hint="do this"))


def test_the_failure_that_others_follow_from(tmp_path):
    assert not has_failure(tmp_path)
    write_failure(tmp_path, 0, failure("peer", "closed by peer"))
    assert has_failure(tmp_path)
    assert first_failure(tmp_path) is None
    write_failure(tmp_path, 1, failure("unknown", "KeyError"))
    time.sleep(0.02)
    write_failure(tmp_path, 2, failure("unknown", "later"))
    assert first_failure(tmp_path).failure.message == "KeyError"
    write_failure(tmp_path, 3, failure("known", "disk full"))
    assert first_failure(tmp_path).failure.message == "disk full"


def test_what_the_caller_is_told(tmp_path):
    (tmp_path / words.LOG).write_text("the end of the log")
    for code, reason in [(247, "signal 9"), (-9, "signal 9"), (1, "exit code 1"), (0, "exit code 0")]:
        died = _error(code, tmp_path)
        assert type(died) is WorkerDiedError
        assert f"(launcher: {reason})" in died.message
        assert died.message.endswith("the end of the log")
    write_failure(tmp_path, 1, failure("unknown", "KeyError: 3"))
    unknown = _error(1, tmp_path)
    assert (type(unknown), unknown.message) == (StageError, "KeyError: 3\nthe end of the log")
    write_failure(tmp_path, 0, failure("known", "disk full"))
    assert (_error(1, tmp_path).message, _error(1, tmp_path).hint) == ("disk full", "do this")


WATCH = """
import sys, time, threading
from pathlib import Path
from knowrl_core.rl.distributed import rank
rank.LEASE_SECONDS = 2.0
threading.Thread(target=rank._watch, args=(Path(sys.argv[1]),), daemon=True).start()
print("watching", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("end", ["is not renewed", "is gone"])
def test_a_process_ends_with_the_lease(tmp_path, end):
    lease = tmp_path / words.LEASE
    lease.touch()
    process = subprocess.Popen([sys.executable, "-c", WATCH, str(lease)], stdout=subprocess.PIPE)
    process.stdout.readline()
    for _ in range(8):
        lease.touch()
        time.sleep(0.5)
    assert process.poll() is None
    if end == "is gone":
        lease.unlink()
    assert process.wait(30) == 1
    process.stdout.close()
