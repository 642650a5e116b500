"""The user's record of what was named at the command line."""

import pytest

from knowrl_core.storage.remembered import record_file, remember, remembered

ONE, TWO = ("engine.vllm.python", "/a b/python"), ("tracking.uri", "http://mlflow:5000")


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_what_was_named_is_known_later():
    assert remembered() == frozenset()
    remember([])
    assert not record_file().exists(), "a config of defaults leaves a trace"
    remember([ONE])
    remember([TWO, ONE])
    assert remembered() == {ONE, TWO}
    assert record_file().stat().st_mode & 0o777 == 0o600
    assert record_file().parent.stat().st_mode & 0o077 == 0


def test_a_record_that_others_may_write_is_none():
    remember([ONE])
    record_file().chmod(0o666)
    assert remembered() == frozenset()


@pytest.mark.parametrize("text", ["", "[]", '{"tracking.uri": 3}', '{"rl.clip": ["0.3"]}', "\xff"])
def test_a_broken_record_is_empty(text):
    remember([ONE])
    record_file().write_text(text, encoding="latin-1")
    assert remembered() == frozenset()
    remember([TWO])
    assert remembered() == {TWO}


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    remember([ONE])
    assert remembered() == frozenset()
