"""What reaches a terminal."""

import io
import re
import time

from rich.console import Console

from flows.cli import console
from knowrl_core.errors import InputError
from knowrl_core.storage.layout import StageKey

KEY = StageKey(1, "update")


def test_waiting_without_a_bar_prints_nothing(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=80, highlight=False))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with console.TerminalReporter() as reporter:
        time.sleep(0.3)  # several refreshes
        assert screen.getvalue() == ""
        reporter.begin(KEY)
        reporter.advance(1, 4)
        time.sleep(0.3)
        reporter.end(KEY, "done [bold]x[/]")
        shown = screen.getvalue()
        time.sleep(0.3)
        assert screen.getvalue() == shown
    assert "001/update" in shown
    assert "1/4" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "[bold]x[/]" in shown, "text is not markup"


def test_errors_show_markup_and_control_characters_as_text(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, width=200, highlight=False))
    console.print_error(InputError("got '[red]x\x1b[31m'", hint="do [b]that[/b]"))
    assert screen.getvalue() == "error: got '[red]x\\x1b[31m'\ndo [b]that[/b]\n"
