"""Read the objects of one array inside a JSON document one at a time, so that memory does not grow with the file."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from knowrl_core.errors import InputError
from knowrl_core.evaluation.benchmarks.row import HINT, MAX_ROW_CHARS, Row, once
from knowrl_core.seeds.problems import show

_CHUNK: Final = 65_536
_SPACE: Final = " \t\n\r"


def read_array(path: Path, key: str) -> Iterator[Row]:
    """Yield the objects of the array ``key`` of the document's top-level object.

    Raises:
        InputError: The document is not UTF-8, no JSON, has no such array, or an item of it is too long or no object;
            names file, line and item.
    """
    with path.open("rb") as file:
        text = _Text(file, path)
        text.expect("{", f"an object with the key '{key}'")
        keys: list[str] = []
        if text.peek() == "}":
            text.take()
        else:
            while True:
                name = text.value("a key")
                text.expect(":", "':' after a key")
                if name in keys:
                    raise text.error(f"got key {show(name)} twice, expected it once")
                keys.append(str(name))
                if name == key:
                    yield from _items(text, path, key)
                else:
                    text.value(f"the value of {show(name)}")
                if text.expect(",}", "',' or '}'") == "}":
                    break
        if text.peek():
            raise text.error(f"got {show(text.peek())} after the document, expected its end")
        if key not in keys:
            raise InputError(f"{path}: field '{key}': missing, expected an array; got fields {show(keys)}", hint=HINT)


def _items(text: "_Text", path: Path, key: str) -> Iterator[Row]:
    text.expect("[", f"an array under '{key}'")
    if text.peek() == "]":
        text.take()
        return
    index = 0
    while True:
        text.peek()
        place = f"{path}:{text.line}: {key}[{index}]"
        item = text.value(f"{key}[{index}]")
        if not isinstance(item, dict):
            raise InputError(f"{place}: got {show(item)}, expected a JSON object", hint=HINT)
        yield Row(item, place, path.stem, index)
        index += 1
        if text.expect(",]", f"',' or ']' after {key}[{index - 1}]") == "]":
            return


class _Text:
    """A window on the document: what is consumed is dropped, and more is read when it is needed."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._json = json.JSONDecoder(object_pairs_hook=once)
        self._window, self._at, self._ended = "", 0, False
        self.line = 1
        """Line of the next character, from 1."""

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            end = self._at
            while end < len(self._window) and self._window[end] in _SPACE:
                end += 1
            self._move(end)
            if end < len(self._window):
                return self._window[end]
            if not self._more():
                return ""

    def take(self) -> None:
        """Consume the character that was peeked at."""
        self._move(self._at + 1)

    def expect(self, allowed: str, what: str) -> str:
        """Consume one of these characters."""
        char = self.peek()
        if not char or char not in allowed:
            raise self.error(f"got {show(char) if char else 'the end of the file'}, expected {what}")
        self.take()
        return char

    def value(self, what: str) -> Any:
        """Consume one JSON value."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._window, self._at)
                # A number at the end of the window may go on behind it ("1" or "1." of 1.5).
                if self._window[end:].strip("0123456789.eE+-") or not self._more():
                    self._move(end)
                    return value
                continue
            except (ValueError, RecursionError) as error:
                problem = str(error) if isinstance(error, ValueError) else "nested too deeply"
            # It may only be cut off: an error counts when no more can or may be read.
            if len(self._window) - self._at >= MAX_ROW_CHARS:
                raise self.error(f"{what}: got more than {MAX_ROW_CHARS:,} characters, or no JSON ({problem})")
            if not self._more():
                raise self.error(f"{what}: got no JSON: {problem}")

    def error(self, message: str) -> InputError:
        """An error at the current line."""
        return InputError(f"{self._path}:{self.line}: {message}", hint=HINT)

    def _move(self, end: int) -> None:
        self.line += self._window.count("\n", self._at, end)
        self._at = end

    def _more(self) -> bool:
        if self._ended:
            return False
        raw = self._file.read(_CHUNK)
        self._ended = not raw
        try:
            text = self._decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            self._move(len(self._window))
            self.line += error.object[: error.start].count(b"\n")
            got = show(error.object[error.start : error.start + 8])
            raise self.error(f"got bytes {got}, expected UTF-8") from None
        self._window, self._at = self._window[self._at :] + text, 0
        return not self._ended or bool(text)
