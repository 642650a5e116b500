"""A flow run's process ends when its worker's process does; real processes."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from flows.remote import STARTED_BY_A_WORKER

CHILD = """
import sys, time
from flows.worker_watch import ends_with_its_worker
with ends_with_its_worker(0.1):
    print("up", flush=True)
    time.sleep(float(sys.argv[1]))
print("done", flush=True)
"""
WORKER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def started():
    """A worker's process and its child, as (process, the child's pid)."""
    workers = []

    def start(env, seconds="60"):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, CHILD, seconds],
            env=os.environ | env,
            stdout=subprocess.PIPE,
            text=True,
        )
        workers.append(worker)
        lines = sorted(worker.stdout.readline().strip() for _ in range(2))
        assert lines[1] == "up"
        return worker, int(lines[0])

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()


def gone(pid, seconds):
    """Whether a process ends in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_it_ends_with_the_worker(started):
    worker, child = started({STARTED_BY_A_WORKER: "c0ffee"})
    assert not gone(child, 1)
    worker.send_signal(signal.SIGKILL)
    assert gone(child, 20)


def test_on_the_command_line_it_goes_on(started):
    worker, child = started({})
    worker.kill()
    try:
        assert not gone(child, 1)
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_is_done_is_watched_no_more(started):
    worker, _ = started({STARTED_BY_A_WORKER: "c0ffee"}, seconds="0.1")
    assert worker.stdout.readline().strip() == "done"
