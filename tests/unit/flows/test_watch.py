"""Following a run of another process."""

import json

import pytest

from flows.cli import watch
from flows.cli.describe import Seen
from knowrl_core.errors import ArtifactError
from knowrl_core.report.note import NotedProgress
from tests.unit.flows.test_view import firing, standing


def item(state="running", **more):
    return {
        "name": "r", "state": state, "stages": 12, "stages_committed": 5, "stopped": None, "next_stage": "004/evaluate",
        "resume": "knowrl resume r", "starting_points": [], "error": None, "guards": [], "holder": None, **more,
    }  # fmt: skip


def seen(evaluated=3, progress=None, firings=(), **more):
    return Seen(item(**more), standing(evaluated=evaluated, firings=firings), progress)


class Looks:
    """Stands for ``Watched``: gives one look after another, and raises those that are errors."""

    remote = False

    def __init__(self, *found):
        self._found = list(found)

    def look(self):
        found = self._found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watch, "EVERY", 0.0)
    monkeypatch.setattr(watch.signal, "signal", lambda *_: None)


@pytest.mark.parametrize(
    ("state", "next_stage", "over"),
    [
        ("running", None, False),
        ("not started", "000/generate", False),
        ("completed", "001/update", False),  # a leg of a relay
        ("completed", None, True),
        ("stopped", "003/generate", True),
        ("failed", "001/update", True),
        ("interrupted", "001/update", True),
        ("killed", "001/update", True),
    ],
)
def test_the_end(state, next_stage, over):
    assert watch.is_over(item(state, next_stage=next_stage)) is over


@pytest.mark.parametrize(
    ("state", "code"), [("completed", 0), ("stopped", 0), ("failed", 1), ("interrupted", 1), ("killed", 1)]
)
def test_exit_codes(capsys, state, code):
    assert watch.watch(Looks(seen(state=state, next_stage=None)), as_json=True) == code
    assert json.loads(capsys.readouterr().out)["state"] == state


def test_lines_say_what_is_new(capsys):
    now = NotedProgress(stage="004/evaluate", done=24, total=48, seconds=6.0, per_second=4.0, written=1.0)
    fired = {"iteration": 4, "guard": "kl", "action": "warn", "message": "[red]too far[/red]\x1b[2J"}
    looks = Looks(
        seen(progress=now),
        seen(progress=now),
        ArtifactError("a stage was removed just then"),
        seen(evaluated=4, guards=[fired], firings=[firing(4, "kl")]),
        seen(evaluated=4, state="completed", next_stage=None, guards=[fired], firings=[firing(4, "kl")]),
    )
    assert watch.watch(looks, as_json=False) == 0
    out = capsys.readouterr().out
    assert out.count("004/evaluate: 24/48 prompts, 5 s left, run 14%, 22 min left") == 1
    assert out.count("004/evaluate   probe/accuracy 0.5") == 1
    assert "000/generate" not in out, "what was there before is not told again"
    assert out.count("[red]too far[/red]\\x1b[2J") == 1
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "completed, 5 of 12 stages committed"


def test_what_stays_broken_is_an_error():
    with pytest.raises(ArtifactError):
        watch.watch(Looks(*[ArtifactError("broken")] * watch.BROKEN), as_json=True)
