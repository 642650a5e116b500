"""Which settings belong to the machine, and what its environment allows."""

import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from knowrl_core.config import Config, build_config
from knowrl_core.config.machine import MACHINE_FIELDS, Allowed, inside, settings_of
from knowrl_core.errors import InputError

PLACES = {
    "run.root",
    "model.path",
    *(f"files.{name}" for name in ("feasible", "infeasible", "probe")),
    *(f"prompts.introspect_{name}" for name in ("feasible", "infeasible")),
    *(f"prompts.verdict_{name}" for name in ("constrained", "free")),
    "evaluation.benchmarks.path",
}
"""Fields that name files and folders; flows.remote holds them to the artifact root."""

WORDS = {
    "run.name",
    "model.revision",
    "introspection.filters.keywords",
    "verdict.views",
    "warmup.views",
    "rl.lora.targets",
    "tracking.experiment",
}
"""Fields with text that names nothing outside of the run."""


def texts(section, prefix=""):
    """All fields of a config that may hold any text."""
    found = set()
    for name, field in section.model_fields.items():
        options = [field.annotation, *typing.get_args(field.annotation)]
        options += [part for option in options for part in typing.get_args(option)]
        for option in options:
            if isinstance(option, type) and issubclass(option, BaseModel):
                found |= texts(option, f"{prefix}{name}.")
            elif option is str:
                found.add(f"{prefix}{name}")
    return found


def test_every_text_is_a_machine_setting_a_place_or_a_word():
    """A new field has to be put somewhere, or a flow run could choose what it names."""
    assert texts(Config) == {*MACHINE_FIELDS, *PLACES, *WORDS}


def test_defaults_name_nothing():
    assert settings_of(Config()) == ()


def test_files_are_absolute_and_lists_are_taken_item_by_item(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = build_config(
        {}, ["engine.vllm.python=x/python", "engine.vllm.urls=[http://a:1/, http://b]", "rl.deepspeed.hostfile=hosts"]
    )
    assert set(settings_of(config)) == {
        ("engine.vllm.python", str(tmp_path / "x" / "python")),
        ("engine.vllm.urls", "http://a:1"),
        ("engine.vllm.urls", "http://b"),
        ("rl.deepspeed.hostfile", str(tmp_path / "hosts")),
    }


def test_only_what_is_allowed_to_the_letter(monkeypatch):
    monkeypatch.setenv("KNOWRL_ALLOW", "engine.vllm.urls=http://vllm:8000 'engine.vllm.args=--a b' path=/data")
    allowed = Allowed.here()
    good = (("engine.vllm.urls", "http://vllm:8000"), ("engine.vllm.args", "--a b"))
    bad = (("engine.vllm.urls", "http://vllm:80001"), ("tracking.uri", "http://vllm:8000"), ("engine.vllm.args", "b"))
    assert allowed.strange((*good, *bad)) == list(bad)
    assert allowed.places == ("/data",)
    monkeypatch.setenv("KNOWRL_ALLOW", "*")
    assert Allowed.here().strange(bad) == []
    monkeypatch.delenv("KNOWRL_ALLOW")
    assert Allowed.here().strange(good) == list(good)


@pytest.mark.parametrize("text", ["x", "path=", "path=relative", "rl.clip=1", "'", "engine.vllm.urls", "=x"])
def test_what_cannot_be_read_allows_nothing(text, monkeypatch):
    monkeypatch.setenv("KNOWRL_ALLOW", text)
    with pytest.raises(InputError, match="KNOWRL_ALLOW"):
        Allowed.here()


def test_inside(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "out").symlink_to("/etc")
    root = (str(tmp_path), "s3://bucket/runs")
    for good in (tmp_path, tmp_path / "a" / "new", tmp_path / "a" / ".." / "b", "s3://bucket/runs/x"):
        assert inside(str(good), root), good
    for bad in (tmp_path / "..", tmp_path / "out" / "hosts", f"{tmp_path}2", "s3://bucket/runs2", "s3://bucket",
                "s3://bucket/runs/../x", "/", f"file://{tmp_path}"):  # fmt: skip
        assert not inside(str(bad), root), bad
    assert not inside("s3://bucket/runs", (str(Path.cwd()),))
