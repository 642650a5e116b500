"""The live view of ``knowrl run``: drawn again a few times a second at the bottom of the terminal."""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, TextIO

from rich.console import RenderableType
from rich.live import Live

from flows.cli.console import LineReporter, err, is_live
from flows.cli.view import Iterations, RunView
from knowrl_core.report import Ledger, Meter, Standing
from knowrl_core.storage.layout import StageKey
from knowrl_core.worker.process import signals_held
from tasks.reporter import OpenedRun

A_SECOND: Final = 4
"""Times that the view is drawn in a second."""
SHOW_CURSOR: Final = b"\x1b[?25h"


def run_reporter(*, quiet: bool = False) -> LineReporter:
    """What shows a run: the live view on a terminal, plain lines elsewhere."""
    return LiveReporter() if not quiet and is_live(err, sys.stderr) else LineReporter(quiet=quiet)


class LiveReporter(LineReporter):
    """Shows a run as it goes; lines are printed above the view, which is gone when the run ends or a stage fails."""

    def __init__(self) -> None:
        super().__init__()
        self._meter = Meter()
        self._run: OpenedRun | None = None
        self._ledger: Ledger | None = None
        self._standing: Standing | None = None
        self._iterations: Iterations | None = None
        self._live: Live | None = None
        self._shown = ExitStack()

    def __exit__(self, *_: object) -> None:
        self._stop()

    def opened(self, run: OpenedRun) -> None:
        """Look at what there is of the run."""
        self._run, self._ledger = run, Ledger(run.paths, run.keys)
        self._look()

    def begin(self, key: StageKey) -> None:
        """Show the view; not before, since nothing would move."""
        self._meter.begin(key)
        self._start()

    def advance(self, done: int, total: int, phase: str = "") -> None:
        """Measure."""
        self._meter.advance(done, total, phase)

    def add_tokens(self, count: int) -> None:
        """Count."""
        self._meter.add_tokens(count)

    def end(self, key: StageKey, summary: str | None) -> None:
        """Print the stage's line; one that failed or was interrupted takes the view away."""
        self._meter.end()
        if summary is None:
            self._stop()
        self._look()
        super().end(key, summary)

    def _look(self) -> None:
        if self._run is not None and self._ledger is not None:
            self._standing = self._ledger.standing(self._run.history)
            self._iterations = Iterations(self._standing)

    def _start(self) -> None:
        if self._live is not None or self._standing is None:
            return
        self._live = Live(
            get_renderable=self._view,
            console=err,
            transient=True,
            refresh_per_second=A_SECOND,
            vertical_overflow="crop",
            redirect_stdout=sys.stdout.isatty(),
        )
        before = sys.stdout, sys.stderr
        with signals_held():
            self._shown.enter_context(self._live)
            self._shown.enter_context(_logs_to(before))

    def _stop(self) -> None:
        with signals_held():  # a second Control-C must not leave the cursor hidden
            self._shown.close()
            self._live = None

    def _view(self) -> RenderableType:
        standing = self._standing
        return RunView(standing, self._meter.read(), iterations=self._iterations) if standing else ""


class _Above(io.StringIO):
    """What is written here is printed above the view."""

    def __init__(self, proxy: TextIO) -> None:
        super().__init__()
        self._proxy = proxy

    def write(self, text: str) -> int:
        return self._proxy.write(text)

    def flush(self) -> None:
        self._proxy.flush()


@contextmanager
def _logs_to(streams: tuple[TextIO, TextIO]) -> Iterator[None]:
    """Send handlers that write to the terminal themselves through what Rich has put in the place of the streams.

    Loggers of Prefect and other libraries took hold of the streams when they were set up.

    Args:
        streams: Standard output and error as they were before.
    """
    loggers = [
        logging.root,
        *(item for item in logging.root.manager.loggerDict.values() if isinstance(item, logging.Logger)),
    ]
    moved = []
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        stream = getattr(handler, "stream", None)
        if stream not in streams or not isinstance(handler, logging.StreamHandler):
            continue
        above = _Above(sys.stderr if stream is streams[1] else sys.stdout)
        moved.append((handler, stream))
        _send(handler, above)
    try:
        yield
    finally:
        for handler, stream in moved:
            _send(handler, stream)


def _send(handler: "logging.StreamHandler[TextIO]", stream: TextIO) -> None:
    handler.setStream(stream)
    console = getattr(handler, "console", None)  # Prefect's, which has a console of its own
    if console is not None:
        console.file = stream
