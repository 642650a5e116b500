"""The terminal: tables, errors, and progress of a run. Whatever comes from data is escaped."""

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self, TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from knowrl_core.errors import KnowrlError
from knowrl_core.report import IterationRow
from knowrl_core.storage.layout import StageKey
from tasks.reporter import Reporter

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_error(error: KnowrlError) -> None:
    """Show an error: what is wrong, then what to do."""
    err.print(f"[bold red]error:[/] {printable(error.message)}", soft_wrap=True)
    if error.hint:
        err.print(printable(error.hint), soft_wrap=True)


def printable(text: str) -> str:
    """Text from anywhere as Rich can print it: markup escaped, control characters shown as such."""
    return escape(visible(text))


def visible(text: str) -> str:
    """Text from anywhere with its control characters shown as such; for a place where markup means nothing."""
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text)


def is_live(console: Console, stream: TextIO) -> bool:
    """Whether a console's lines can be drawn again: it is a terminal, not a dumb one, and no log of a CI system."""
    ci = os.environ.get("CI", "").lower() not in {"", "0", "false"}
    return stream.isatty() and console.is_interactive and not console.is_dumb_terminal and not ci


def stage_line(key: StageKey, summary: str) -> str:
    """A stage that is done, as markup."""
    return f"[cyan]{key!s:<14}[/] {printable(summary)}"


def waiting(text: str) -> AbstractContextManager[object]:
    """Something that moves while nothing else can be shown; on a terminal only."""
    return err.status(printable(text)) if is_live(err, sys.stderr) else nullcontext()


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


class LineReporter(Reporter):
    """Prints a line for each stage that is done, and whatever else is worth one.

    Args:
        quiet: Only warnings.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def message(self, text: str) -> None:
        """Print a line."""
        if not self._quiet:
            err.print(printable(text), soft_wrap=True)

    def warning(self, text: str) -> None:
        """Print a warning."""
        err.print(f"[yellow]warning:[/] {printable(text)}", soft_wrap=True)

    def end(self, key: StageKey, summary: str | None) -> None:
        """Print the summary."""
        if summary is not None and not self._quiet:
            err.print(stage_line(key, summary), soft_wrap=True)
