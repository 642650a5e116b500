"""Read JSON lines one at a time, so that memory does not grow with the file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knowrl_core.errors import InputError
from knowrl_core.evaluation.benchmarks.row import HINT, MAX_ROW_CHARS, Row, once
from knowrl_core.seeds.problems import show


def read_jsonl(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of JSON objects, one a line; blank lines are none.

    Raises:
        InputError: A line is too long, not UTF-8, no JSON or no object; names file and line.
    """
    index = 0
    with path.open("rb") as stream:
        number = 0
        while raw := stream.readline(MAX_ROW_CHARS + 1):
            number += 1
            place = f"{path}:{number}"
            if len(raw) > MAX_ROW_CHARS:
                raise InputError(f"{place}: got a line of more than {MAX_ROW_CHARS:,} bytes, expected less", hint=HINT)
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield Row(_object(raw, place), place, path.stem, index)
                index += 1


def _object(raw: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except UnicodeDecodeError as error:
        got = show(raw[error.start : error.start + 8])
        raise InputError(f"{place}: got byte {error.start + 1} of {got}, expected UTF-8", hint=HINT) from None
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
        why = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise InputError(
            f"{place}: got {show(raw[:200].decode('utf-8', 'replace').strip())}, expected JSON: {why}", hint=HINT
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{place}: got {show(value)}, expected a JSON object", hint=HINT)
    return value
