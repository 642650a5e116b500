"""Paths that cannot be: a clear error, from every place that takes one."""

import pytest

from knowrl_core.config import anchored, load_config
from knowrl_core.errors import InputError
from knowrl_core.places import expanded

NOBODY = "~nosuchuser-knowrl/x"


def test_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(expanded("~/runs")) == "/home/somebody/runs"
    assert str(expanded("runs/~x")) == "runs/~x"


@pytest.mark.parametrize(("text", "named"), [(NOBODY, "'~nosuchuser-knowrl'"), ("a\0b", "zero byte")])
def test_what_can_be_no_path(text, named):
    with pytest.raises(InputError, match=named):
        expanded(text)


@pytest.mark.parametrize(
    "field", ["run.root", "files.feasible", "prompts.verdict_free", "model.path", "rl.deepspeed.hostfile"]
)
def test_fields_of_a_config(field):
    with pytest.raises(InputError, match="nosuchuser"):
        anchored(load_config("smoke", [f"{field}={NOBODY}"]))


@pytest.mark.parametrize("source", [f"{NOBODY}.yaml", "x" * 5_000 + ".yaml", "a\0b.yaml"])
def test_a_profile(source):
    with pytest.raises(InputError):
        load_config(source)
