"""One line of a seed file: the task that it holds, or what is wrong with it."""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from knowrl_core.labels import LABELS, Label
from knowrl_core.seeds.model import ID_PATTERN, MAX_NOTE_CHARS, MAX_TASK_CHARS, SeedTask
from knowrl_core.seeds.problems import Problem, error, show

MAX_LINE_BYTES: Final = 64 * 1024
"""Longest line that is read into memory; a task of 4,000 characters needs a fraction of it."""

_NOTE = f"text of at most {MAX_NOTE_CHARS:,} characters without control characters"
_EXPECTED: Final = {
    "id": f"text that matches {ID_PATTERN}",
    "task": f"visible text of at most {MAX_TASK_CHARS:,} characters without control characters "
    "other than newline and tab",
    "label": " or ".join(map(repr, LABELS)),
    "form": "'instruction', 'question' or null",
}


def parse_line(path: Path, line: int, raw: bytes, expected_label: Label | None) -> SeedTask | list[Problem]:
    """Return the task of one line, or what is wrong with it.

    Args:
        path: The file, for messages.
        line: Number of the line, from 1.
        raw: The line's bytes; more than ``MAX_LINE_BYTES`` of them are refused.
        expected_label: The one label that the file may hold; ``None`` allows both.
    """
    if len(raw) > MAX_LINE_BYTES:
        return [error("long_line", path, line, f"got a line of more than {MAX_LINE_BYTES:,} bytes, expected less")]
    try:
        value: Any = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError as exc:
        got = show(raw[exc.start : exc.start + 8])
        return [error("not_utf8", path, line, f"got byte {exc.start + 1} of {got}, expected UTF-8")]
    except (ValueError, RecursionError) as exc:  # RecursionError: thousands of nested brackets
        why = str(exc) if isinstance(exc, ValueError) else "nested too deeply"
        return [error("not_json", path, line, f"got {show(raw.decode()[:200].strip())}, expected JSON: {why}")]
    return _validate(path, line, value, expected_label)


def _validate(path: Path, line: int, value: Any, expected_label: Label | None) -> SeedTask | list[Problem]:
    """Return the task that a decoded value is, or what is wrong with it."""
    if not isinstance(value, dict):
        return [error("not_object", path, line, f"got {show(value)}, expected a JSON object")]
    try:
        task = SeedTask.model_validate(value)
    except ValidationError as exc:
        return [_field_problem(path, line, detail) for detail in exc.errors(include_url=False)]
    if expected_label is not None and task.label != expected_label:
        message = f"field 'label': got '{task.label}', expected '{expected_label}' as in the whole file"
        return [error("wrong_label", path, line, message)]
    return task


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a key that stands twice: JSON would keep the last without a word."""
    built = dict(pairs)
    if len(built) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {show(next(k for k in keys if keys.count(k) > 1))} stands twice")
    return built


def _field_problem(path: Path, line: int, detail: Any) -> Problem:
    """Turn one of pydantic's error details into a problem in our words."""
    field = str(detail["loc"][0]) if detail["loc"] else "?"
    if detail["type"] == "extra_forbidden":
        known = ", ".join(SeedTask.model_fields)
        return error("unknown_field", path, line, f"field {show(field)}: unknown, expected one of {known}")
    expected = _EXPECTED.get(field, _NOTE)
    if detail["type"] == "missing":
        return error("missing_field", path, line, f"field '{field}': missing, expected {expected}")
    why = f" ({detail['ctx']['error']})" if detail["type"] == "value_error" else ""
    return error("bad_field", path, line, f"field '{field}': got {show(detail['input'])}{why}, expected {expected}")
