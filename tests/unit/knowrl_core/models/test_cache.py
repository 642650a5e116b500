import logging
import threading

import pytest

from knowrl_core.errors import InputError
from knowrl_core.models.cache import RECORD, build_once, cache_root
from knowrl_core.models.folder import hash_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KNOWRL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Builder:
    def __init__(self):
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "config.json").write_text("{}")


def test_it_is_built_once(cache):
    build = Builder()
    path, digest = build_once("m", build)
    assert path == cache / "models" / "m"
    assert digest == hash_folder(path) == (path / RECORD).read_text().strip()
    assert build_once("m", build) == (path, digest)
    assert build.calls == 1
    assert sorted(file.name for file in (cache / "models").iterdir()) == ["m", "m.lock"]


@pytest.mark.parametrize("damage", ["alter", "remove", "unrecorded"])
def test_a_damaged_one_is_built_again_with_a_warning(damage, caplog):
    build = Builder()
    path, digest = build_once("m", build)
    if damage == "alter":
        (path / "config.json").write_text("{ }")
    else:
        (path / ("config.json" if damage == "remove" else RECORD)).unlink()
    with caplog.at_level(logging.WARNING):
        assert build_once("m", build) == (path, digest)
    assert build.calls == 2
    assert "damaged" in caplog.text


def test_a_failed_build_leaves_nothing(cache):
    def build(folder):
        (folder / "config.json").write_text("{}")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        build_once("m", build)
    assert [file.name for file in (cache / "models").iterdir()] == ["m.lock"]


def test_two_at_once_build_one():
    build = Builder()
    found = []
    threads = [threading.Thread(target=lambda: found.append(build_once("m", build))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert build.calls == 1


def test_an_unusable_cache_is_explained(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KNOWRL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be used") as caught:
        build_once("m", Builder())
    assert "KNOWRL_CACHE" in caught.value.hint


def test_the_place_can_be_chosen(monkeypatch):
    monkeypatch.setenv("KNOWRL_CACHE", "~/there")
    assert cache_root().name == "there"
    assert "~" not in str(cache_root())
    monkeypatch.delenv("KNOWRL_CACHE")
    assert cache_root().name == "knowrl"
