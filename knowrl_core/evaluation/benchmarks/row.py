"""One row of a benchmark file, with its place: whatever is wrong with it is said with file, line and field."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from knowrl_core.errors import InputError
from knowrl_core.seeds.problems import show

MAX_ROW_CHARS: Final = 1_000_000
"""Longest row that is read into memory, in bytes of a line or characters of an array's item."""

MAX_TASK_CHARS: Final = 20_000
"""Longest task. The longest of the public sets has about 5,000 characters."""


@dataclass(frozen=True, slots=True)
class Row:
    """A decoded JSON object.

    Attributes:
        data: Its fields.
        place: Where it stands, such as ``tasks.jsonl:17``, for messages.
        part: Name of the file without its ending.
        index: Number of the row in the file, from 0.
    """

    data: dict[str, Any]
    place: str
    part: str
    index: int

    def text(self, field: str) -> str:
        """A text that is not empty, stripped. Markup and control characters in it are data and stay.

        Raises:
            InputError: Missing, no text, empty or without a visible character, too long, or not representable in UTF-8.
        """
        value = self._get(field, "text")
        if not isinstance(value, str):
            raise self.wrong(field, value, "text")
        value = value.strip()
        if not any(char.isprintable() and not char.isspace() for char in value):
            raise self.wrong(field, value, "text with at least one visible character")
        if len(value) > MAX_TASK_CHARS:
            raise self.wrong(field, value, f"at most {MAX_TASK_CHARS:,} characters")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise self.wrong(field, value, "text in UTF-8 (it holds half of a surrogate pair)")
        return value

    def note(self, field: str) -> str:
        """A text that may be missing, null or empty; then it is ``""``.

        Raises:
            InputError: It is something else than text, or as :meth:`text`.
        """
        value = self.data.get(field)
        return "" if value is None or value == "" else self.text(field)

    def flag(self, field: str) -> bool:
        """A boolean.

        Raises:
            InputError: Missing or no boolean (nor "true", nor 1: a label is never guessed).
        """
        value = self._get(field, "true or false")
        if not isinstance(value, bool):
            raise self.wrong(field, value, "true or false")
        return value

    def choice(self, field: str, *expected: Any) -> Any:
        """One of a few values, of the same type.

        Raises:
            InputError: Missing or another value.
        """
        allowed = " or ".join(show(value) for value in expected)
        value = self._get(field, allowed)
        if not any(type(value) is type(item) and value == item for item in expected):
            raise self.wrong(field, value, allowed)
        return value

    def wrong(self, field: str, value: Any, expected: str) -> InputError:
        """The error that a field holds something else than expected."""
        return InputError(f"{self.place}: field '{field}': got {show(value)}, expected {expected}", hint=HINT)

    def derived_id(self, task: str) -> str:
        """An id for a row of a file that has none: file, row, and a hash of the text, which shows a changed file."""
        return f"{self.part}-{self.index:05d}-{hashlib.sha256(task.encode()).hexdigest()[:8]}"

    def _get(self, field: str, expected: str) -> Any:
        if field not in self.data:
            known = ", ".join(show(name) for name in list(self.data)[:12]) or "none"
            raise InputError(
                f"{self.place}: field '{field}': missing, expected {expected}; got fields {known}", hint=HINT
            )
        return self.data[field]


HINT: Final = (
    "`knowrl evaluate --list` says which files each benchmark is read from; docs/evaluate.md shows their shape."
)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a key that stands twice: JSON would keep the last without a word.

    Raises:
        ValueError: A key stands twice.
    """
    built = dict(pairs)
    if len(built) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {show(next(key for key in keys if keys.count(key) > 1))} stands twice")
    return built
