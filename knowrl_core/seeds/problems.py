"""What is wrong with a seed file, and how it is said."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from knowrl_core.errors import InputError

Severity = Literal["error", "warning"]
"""An error keeps a file from being used; a warning says what to look at."""

MAX_LISTED: Final = 20
"""Problems that one message lists: a screen's worth."""

MAX_SHOWN: Final = 80
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, at one place.

    Attributes:
        severity: ``error`` or ``warning``.
        code: Short stable name, for scripts.
        file: The file, as the user wrote it; empty if it concerns all files together.
        line: Line number from 1; 0 if it concerns the whole file.
        message: What was got and what was expected.
    """

    severity: Severity
    code: str
    file: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}" if place else self.message

    def to_dict(self) -> dict[str, str | int]:
        """Return the problem as plain values for JSON."""
        return {
            "severity": self.severity,
            "code": self.code,
            "file": self.file,
            "line": self.line,
            "message": self.message,
        }


class SeedError(InputError):
    """Seed files that cannot be used, with every problem that was found.

    Args:
        problems: At least one problem; the first 20 are put into the message.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(p) for p in self.problems[:MAX_LISTED]]
        if len(self.problems) > MAX_LISTED:
            lines.append(f"... and {len(self.problems) - MAX_LISTED} more problems")
        super().__init__(
            "\n".join(lines),
            hint="One JSON object a line with at least id, task and label is expected; seeds/README.md "
            "describes the columns, and `knowrl seeds check FILE...` lists what is wrong.",
        )


def error(code: str, file: Path | str, line: int, message: str) -> Problem:
    """Return a problem of severity ``error``."""
    return Problem("error", code, str(file), line, message)


def warning(code: str, message: str, file: Path | str = "", line: int = 0) -> Problem:
    """Return a problem of severity ``warning``, by default about all files together."""
    return Problem("warning", code, str(file), line, message)


def show(value: object) -> str:
    """Return a value as a message may hold it: escaped, on one line, cut.

    ``ascii`` and not ``repr``: a terminal would obey direction marks and the like that ``repr`` lets through.
    """
    if isinstance(value, str):
        # Cut before escaping: an escape of several characters is never cut in its middle.
        text = ascii(value[:MAX_SHOWN])
        return text if len(value) <= MAX_SHOWN else f"{text}... ({len(value):,} characters)"
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
