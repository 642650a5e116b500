"""The terminal: tables, errors, and progress of a run. Whatever comes from data is escaped."""

import sys
from collections.abc import Sequence
from typing import Self

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from knowrl_core.errors import KnowrlError
from knowrl_core.report import IterationRow
from knowrl_core.storage.layout import StageKey

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_error(error: KnowrlError) -> None:
    """Show an error: what is wrong, then what to do."""
    err.print(f"[bold red]error:[/] {printable(error.message)}", soft_wrap=True)
    if error.hint:
        err.print(printable(error.hint), soft_wrap=True)


def printable(text: str) -> str:
    """Text from anywhere as Rich can print it: markup escaped, control characters shown as such."""
    return escape("".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text))


def iterations_table(rows: Sequence[IterationRow], title: str) -> Table:
    """The table of iterations."""
    from tasks.summary import COLUMNS, cells

    # Two-line titles and no lines between columns: it fits 80 characters.
    table = Table(title=printable(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name, _ in COLUMNS:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*cells(row))
    return table


class TerminalReporter:
    """Shows a run on a terminal: a bar for the running stage, and a line for each that is done.

    Without a terminal only the lines are printed.

    Args:
        columns: More columns of the bar, before the times.
    """

    def __init__(self, *columns: ProgressColumn) -> None:
        self._live = sys.stderr.isatty()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not self._live,
        )
        self._bar: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def message(self, text: str) -> None:
        """Print a line."""
        err.print(printable(text), soft_wrap=True)

    def warning(self, text: str) -> None:
        """Print a warning."""
        err.print(f"[yellow]warning:[/] {printable(text)}", soft_wrap=True)

    def begin(self, key: StageKey) -> None:
        """Show a bar."""
        if self._live:
            self._bar = self._progress.add_task(str(key), total=None)
            self._progress.start()  # not before: nothing would be redrawn ten times a second

    def advance(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._progress.update(self._bar, completed=done, total=total)

    def end(self, key: StageKey, summary: str | None) -> None:
        """Replace the bar by a line."""
        if self._bar is not None:
            self._progress.stop()
            self._progress.remove_task(self._bar)
            self._bar = None
        if summary is not None:
            err.print(f"[cyan]{key!s:<14}[/] {printable(summary)}", soft_wrap=True)
