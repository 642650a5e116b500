"""Read seed files: one JSON object a line, every problem found before any is reported."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from knowrl_core.labels import FEASIBLE, INFEASIBLE, Label
from knowrl_core.seeds.model import SeedTask, normalise
from knowrl_core.seeds.parse import MAX_LINE_BYTES, parse_line
from knowrl_core.seeds.problems import Problem, SeedError, error, show
from knowrl_core.storage.files import numbered_lines

MAX_PROBLEMS: Final = 1_000
"""Problems after which a file is given up: it is no seed file, and the list would fill memory."""


class Row(NamedTuple):
    """A valid task and where it stands."""

    file: Path
    line: int
    task: SeedTask


def scan(path: Path, expected_label: Label | None = None) -> tuple[list[Row], list[Problem]]:
    """Read a file and return its valid rows together with everything that is wrong with it.

    Blank lines are allowed. Duplicates are not looked for; see :func:`repeated`.

    Args:
        path: A regular file in UTF-8, with or without a byte order mark.
        expected_label: The one label that the file may hold; ``None`` allows both.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    try:
        # A pipe or a device could block for ever or never end.
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing" if not path.exists() else "no regular file"
            return [], [error("no_file", path, 0, f"got {what}, expected a file of JSON lines")]
        with path.open("rb") as stream:
            for number, raw in _lines(stream):
                if not raw.strip():
                    continue
                found = parse_line(path, number, raw, expected_label)
                if isinstance(found, SeedTask):
                    rows.append(Row(path, number, found))
                else:
                    problems += found
                if len(problems) >= MAX_PROBLEMS:
                    problems.append(error("too_many", path, number, "gave up: this is no seed file"))
                    break
    except (OSError, ValueError) as exc:  # ValueError: a null character in the path
        reason = getattr(exc, "strerror", None) or str(exc)
        return [], [error("unreadable", path, 0, f"cannot be read: {reason}")]
    if not rows and not problems:
        problems.append(error("empty", path, 0, "got no task, expected at least one JSON object"))
    return rows, problems


def repeated(rows: Iterable[Row]) -> list[Problem]:
    """Return an error for each row whose id or (normalised) text an earlier row already has."""
    problems: list[Problem] = []
    ids: dict[str, Row] = {}
    texts: dict[str, Row] = {}
    for row in rows:
        for code, field, value, seen in (
            ("duplicate_id", "id", row.task.id, ids),
            ("duplicate_task", "task", normalise(row.task.task), texts),
        ):
            first = seen.setdefault(value, row)
            if first is not row:
                got = show(row.task.id if field == "id" else row.task.task)
                message = f"field '{field}': got {got} again, expected it once; first at {first.file}:{first.line}"
                if first.task.label != row.task.label:
                    message += f" with label '{first.task.label}'"
                problems.append(error(code, row.file, row.line, message))
    return problems


def load_seed_file(path: Path, expected_label: Label | None = None) -> list[SeedTask]:
    """Return the tasks of one file in its order.

    Args:
        path: File of JSON lines.
        expected_label: The one label that the file may hold; ``None`` allows both.

    Raises:
        SeedError: Anything is wrong with the file; it lists all that is.
    """
    return _load([(path, expected_label)])


def load_seeds(feasible: Path, infeasible: Path) -> list[SeedTask]:
    """Return the tasks of both seed files, the feasible ones first.

    Raises:
        SeedError: Anything is wrong with either file, or a task stands in both.
    """
    return _load([(feasible, FEASIBLE), (infeasible, INFEASIBLE)])


def _load(files: list[tuple[Path, Label | None]]) -> list[SeedTask]:
    rows: list[Row] = []
    problems: list[Problem] = []
    for path, label in files:
        good, bad = scan(Path(path), label)
        rows += good
        problems += bad
    problems += repeated(rows)
    if problems:
        raise SeedError(problems)
    return [row.task for row in rows]


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a seed file, without a byte order mark."""
    for number, raw in numbered_lines(stream, MAX_LINE_BYTES):
        yield number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
