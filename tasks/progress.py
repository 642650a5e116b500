"""Who is told how a run goes: a terminal, plain lines, or Prefect's logger."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from knowrl_core.storage.layout import StageKey


class Reporter(Protocol):
    """Receives what happens in a run. Texts are plain: whoever renders them escapes them."""

    def message(self, text: str) -> None:
        """Something worth a line."""
        ...

    def warning(self, text: str) -> None:
        """Something that the user should look at."""
        ...

    def begin(self, key: StageKey) -> None:
        """A stage starts."""
        ...

    def advance(self, done: int, total: int) -> None:
        """The stage has done so much of its work."""
        ...

    def end(self, key: StageKey, summary: str | None) -> None:
        """A stage is committed (with its summary), or has failed (None)."""
        ...


class SilentReporter:
    """Says nothing; also the base for reporters that say little."""

    def message(self, text: str) -> None:
        """Ignore."""

    def warning(self, text: str) -> None:
        """Ignore."""

    def begin(self, key: StageKey) -> None:
        """Ignore."""

    def advance(self, done: int, total: int) -> None:
        """Ignore."""

    def end(self, key: StageKey, summary: str | None) -> None:
        """Ignore."""


class PrefectReporter(SilentReporter):
    """Writes to the logger of the current flow or task run, so that the Prefect UI shows it; then tells another one."""

    def __init__(self, also: Reporter | None = None) -> None:
        self._also = also or SilentReporter()

    def message(self, text: str) -> None:
        """Log it."""
        self._log(text)
        self._also.message(text)

    def warning(self, text: str) -> None:
        """Log it as a warning."""
        self._log(text, warning=True)
        self._also.warning(text)

    def begin(self, key: StageKey) -> None:
        """Pass it on; Prefect shows running tasks itself."""
        self._also.begin(key)

    def advance(self, done: int, total: int) -> None:
        """Pass it on."""
        self._also.advance(done, total)

    def end(self, key: StageKey, summary: str | None) -> None:
        """Log the summary."""
        if summary:
            self._log(f"{key}: {summary}")
        self._also.end(key, summary)

    def _log(self, text: str, *, warning: bool = False) -> None:
        try:
            logger = get_run_logger()
        except MissingContextError:  # stages also run without Prefect, in tests
            return
        (logger.warning if warning else logger.info)("%s", text)


_terminal: Reporter | None = None


@contextmanager
def terminal(reporter: Reporter) -> Iterator[None]:
    """Let runs of this process report to a terminal, too."""
    global _terminal  # noqa: PLW0603 - a flow cannot be handed an object: its parameters are JSON
    _terminal = reporter
    try:
        yield
    finally:
        _terminal = None


def current_reporter() -> Reporter:
    """Prefect's logger, and the terminal if there is one."""
    return PrefectReporter(_terminal)
