"""Prefect's logger as a reporter, and the terminal that is told as well."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from knowrl_core.storage.layout import StageKey
from tasks.reporter import ForwardingReporter, Reporter


class PrefectReporter(ForwardingReporter):
    """Writes to the logger of the current flow or task run, so that the Prefect UI shows it; then tells another one."""

    def message(self, text: str) -> None:
        """Log it."""
        self._log(text)
        super().message(text)

    def warning(self, text: str) -> None:
        """Log it as a warning."""
        self._log(text, warning=True)
        super().warning(text)

    def end(self, key: StageKey, summary: str | None) -> None:
        """Log the summary."""
        if summary:
            self._log(f"{key}: {summary}")
        super().end(key, summary)

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
    return PrefectReporter(_terminal or Reporter())
