"""Who holds a run's lock, as others see it."""

import json
import os
import time

import pytest

from knowrl_core.storage import lock
from knowrl_core.storage.lock import Holder, RunLock, is_locked, read_holder


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


def test_the_holder_is_named_while_it_holds(path):
    with RunLock(path):
        assert is_locked(path)
        assert read_holder(path).pid == os.getpid()
    assert not is_locked(path)
    assert read_holder(path) is None


@pytest.mark.parametrize(
    "record",
    [{}, [], {"host": "h", "pid": "[red]1", "started": "s"}, {"host": 1, "pid": 1, "started": "s"}, {"pid": 1}],
)
def test_a_record_that_names_nobody(path, record):
    path.with_name(".lock.json").write_text(json.dumps(record))
    assert read_holder(path) is None


def test_a_record_is_bounded(path):
    record = {"host": "h" * 10_000, "pid": 1, "started": "s" * 10_000}
    path.with_name(".lock.json").write_text(json.dumps(record))
    assert read_holder(path) == Holder("h" * 255, 1, "s" * 40)
    path.with_name(".lock.json").write_text(json.dumps({**record, "padding": "x" * 100_000}))
    assert read_holder(path) is None


def test_the_lock_of_somebody_elses_run_is_known_by_its_record(path, monkeypatch):
    monkeypatch.setattr(lock.os, "access", lambda *_: False)
    record = path.with_name(".lock.json")
    assert not is_locked(path)
    record.write_text("{}")
    assert is_locked(path)
    for far in (-lock.STALE - 1, lock.STALE + 86_400):
        os.utime(record, (time.time() + far,) * 2)
        assert not is_locked(path)


@pytest.mark.parametrize(("far", "locked"), [(0, True), (30, True), (-90, False), (86_400, False)])
def test_another_machines_record_counts_while_it_is_fresh(path, far, locked):
    """One from the future is none: the clock that dated it has been set back since."""
    record = path.with_name(".lock.json")
    path.touch()
    record.write_text(json.dumps({"host": "h", "machine": "another", "pid": 1, "started": "s"}))
    os.utime(record, (time.time() + far,) * 2)
    assert is_locked(path) is locked
