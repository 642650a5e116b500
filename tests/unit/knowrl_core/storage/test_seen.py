"""What was hashed already is not hashed again, unless it may have changed."""

import os
import time

import pytest

from knowrl_core.storage import seen as module
from knowrl_core.storage.files import sha256_file
from knowrl_core.storage.seen import SeenFiles


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that are hashed; every file is large."""
    names = []

    def count(path):
        names.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(module, "sha256_file", count)
    monkeypatch.setattr(module, "LARGE", 4)
    monkeypatch.setattr(module, "SETTLED", 0)
    return names


def look(folder):
    found = SeenFiles(folder / ".seen.json")
    digests = {path.name: found.sha256(path) for path in sorted(folder.glob("*.bin"))}
    found.keep()
    return digests


def test_a_large_file_is_hashed_once_and_a_small_one_always(tmp_path, hashed):
    (tmp_path / "a.bin").write_bytes(b"weights")
    (tmp_path / "b.bin").write_bytes(b"abc")
    first = look(tmp_path)
    assert hashed == ["a.bin", "b.bin"]
    assert look(tmp_path) == first == {p.name: sha256_file(p) for p in tmp_path.glob("*.bin")}
    assert hashed == ["a.bin", "b.bin", "b.bin"]


def test_what_was_written_just_now_is_not_remembered(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 10**10)
    (tmp_path / "a.bin").write_bytes(b"weights")
    look(tmp_path)
    look(tmp_path)
    assert hashed == ["a.bin", "a.bin"]


def _in_place(path):
    with path.open("r+b") as file:
        file.seek(2)
        file.write(b"X")


def _time_set_back(path):
    before = path.stat()
    _in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(path):
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"weighty")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [_in_place, _time_set_back, _replaced, lambda path: path.write_bytes(b"longer one")])
def test_whatever_may_have_changed_is_hashed_again(tmp_path, hashed, change):
    path = tmp_path / "a.bin"
    path.write_bytes(b"weights")
    before = look(tmp_path)
    time.sleep(0.02)  # file systems count time in ticks of some milliseconds
    change(path)
    assert look(tmp_path) == {"a.bin": sha256_file(path)} != before


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a.bin": 3}', '{"a.bin": []}', '{"a.bin": ["x"]}'])
def test_a_spoilt_memory_is_none(tmp_path, hashed, content):
    path = tmp_path / "a.bin"
    path.write_bytes(b"weights")
    (tmp_path / ".seen.json").write_text(content)
    assert look(tmp_path) == {"a.bin": sha256_file(path)}
    assert hashed == ["a.bin"]
