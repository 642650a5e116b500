"""What reaches a terminal."""

import io
import logging
import re
import sys
import time

import pytest
from rich.console import Console

from flows.cli import console, live
from knowrl_core.errors import InputError
from knowrl_core.storage.layout import RunPaths, StageKey, stage_keys
from tasks.reporter import OpenedRun

KEY = StageKey(1, "update")


class Screen(io.StringIO):
    """Takes what is written, and is a terminal if it is told so."""

    def __init__(self, *, terminal=True):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def terminal(monkeypatch):
    """Puts a screen in the place of standard error. Called in the test: pytest puts its own there before."""
    for name in ("CI", "NO_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def replace(*, terminal=True):
        screen = Screen(terminal=terminal)
        monkeypatch.setattr(sys, "stderr", screen)
        for module in (console, live):
            monkeypatch.setattr(module, "err", Console(stderr=True, width=80, highlight=False))
        return screen

    return replace


def test_lines_and_logs_stand_above_a_view_that_leaves_nothing(terminal, tmp_path):
    screen = terminal()
    handler = logging.StreamHandler(screen)  # took hold of the stream before there was a view
    logger = logging.getLogger("tests.console")
    logger.addHandler(handler)
    try:
        with live.run_reporter() as reporter:
            reporter.opened(OpenedRun(RunPaths(tmp_path, "r"), tuple(stage_keys(1, warmup=False)), {}))
            time.sleep(0.3)  # several refreshes
            assert screen.getvalue() == "", "nothing goes on yet"
            reporter.begin(KEY)
            reporter.advance(1, 4, "train")
            time.sleep(0.6)
            assert "1/4 steps" in screen.getvalue()
            before = len(screen.getvalue())
            logger.warning("from a library")
            erased, _, drawn = screen.getvalue()[before:].partition("from a library\n")
            assert "\x1b[2K" in erased, "the view is taken away first"
            assert "1/4 steps" in drawn, "and drawn again below"
            reporter.end(KEY, "done [bold]x[/]")
        assert handler.stream is screen
    finally:
        logger.removeHandler(handler)
    shown = screen.getvalue()
    assert "001/update     done [bold]x[/]" in _plain(shown), "text is not markup"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is hidden"
    assert shown.rindex("\x1b[2K") > shown.rindex("1/4 steps"), "the view is left behind"
    time.sleep(0.3)
    assert screen.getvalue() == shown


def test_a_stage_that_fails_takes_the_view_away(terminal, tmp_path):
    screen = terminal()
    with live.run_reporter() as reporter:
        reporter.opened(OpenedRun(RunPaths(tmp_path, "r"), tuple(stage_keys(1, warmup=False)), {}))
        reporter.begin(KEY)
        reporter.end(KEY, None)
        shown = screen.getvalue()
        assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
        reporter.begin(KEY)  # it is tried again
        assert screen.getvalue() != shown


@pytest.mark.parametrize("variable", [("CI", "true"), ("TERM", "dumb")])
def test_plain_lines_where_nothing_can_be_drawn_again(terminal, monkeypatch, variable):
    monkeypatch.setenv(*variable)
    _only_lines(terminal())


def test_plain_lines_without_a_terminal(terminal, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    _only_lines(terminal(terminal=False))


def test_no_color_is_no_color(terminal, monkeypatch, tmp_path):
    monkeypatch.setenv("NO_COLOR", "1")
    screen = terminal()
    with live.run_reporter() as reporter:
        assert isinstance(reporter, live.LiveReporter)
        reporter.opened(OpenedRun(RunPaths(tmp_path, "r"), tuple(stage_keys(1, warmup=False)), {}))
        reporter.begin(KEY)
        time.sleep(0.3)
    assert "\x1b[36m" not in screen.getvalue()


def test_quiet_leaves_warnings(terminal):
    screen = terminal()
    with live.run_reporter(quiet=True) as reporter:
        reporter.begin(KEY)
        reporter.message("a message")
        reporter.end(KEY, "a summary")
        assert screen.getvalue() == ""
        reporter.warning("look")
    assert "look" in screen.getvalue()


def test_errors_show_markup_and_control_characters_as_text(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, width=200, highlight=False))
    console.print_error(InputError("got '[red]x\x1b[31m'", hint="do [b]that[/b]"))
    assert screen.getvalue() == "error: got '[red]x\\x1b[31m'\ndo [b]that[/b]\n"


def _only_lines(screen):
    with live.run_reporter() as reporter:
        reporter.begin(KEY)
        reporter.advance(1, 4, "train")
        time.sleep(0.3)
        assert screen.getvalue() == ""
        reporter.end(KEY, "done")
    assert _plain(screen.getvalue()) == "001/update     done\n"


def _plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
