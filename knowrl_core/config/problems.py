"""Pydantic's errors in the words of a config: file, line, field, value, what is allowed."""

import difflib
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from knowrl_core.config.document import Path

MAX_SHOWN = 20


def redacted(text: str) -> str:
    """A text as it may be shown: passwords in its URIs are masked."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", text)


def redacted_values(value: Any) -> Any:
    """JSON values with every text as it may be shown.

    Text by text, since what stands between the address in one field and an ``@`` in another is no password.
    """
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: redacted_values(item) for name, item in value.items()}
    return [redacted_values(item) for item in value] if isinstance(value, list | tuple) else value


def section_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The section class that a path leads to; None where the path leaves the config."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is None or part not in current.model_fields:
            return None
        current = _as_section(current.model_fields[str(part)].annotation)
    return current


def field_type(model: type[BaseModel], path: Path) -> Any:
    """The annotation of the field at a path, or None."""
    parent = section_at(model, path[:-1])
    if parent is None or not path or path[-1] not in parent.model_fields:
        return None
    return parent.model_fields[str(path[-1])].annotation


def _as_section(annotation: Any) -> type[BaseModel] | None:
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def describe(error: ValidationError, model: type[BaseModel], where: Callable[[Path], str]) -> list[str]:
    """One line a problem.

    Args:
        error: What pydantic found.
        model: The config class that was validated.
        where: Turns a path into "file:line" (or the override that set it).
    """
    lines = []
    for item in error.errors(include_url=False):
        path: Path = tuple(item["loc"])
        dotted = ".".join(map(str, path)) or "(top level)"
        if item["type"] == "extra_forbidden":
            text = f"unknown key {str(path[-1])!r}{_allowed(model, path)}"
        elif item["type"] == "value_error":
            got = "" if isinstance(item["input"], dict | list) else f"got {_show(item['input'])}, "
            text = f"{got}{item['ctx']['error']}"
        elif item["type"] == "missing":
            text = "is missing"
        else:
            text = f"got {_show(item['input'])}, expected {_expected(item)}"
        lines.append(f"{where(path)}: {dotted}: {text}")
    shown = lines[:MAX_SHOWN]
    if len(lines) > len(shown):
        shown.append(f"... and {len(lines) - len(shown)} more")
    return shown


def _allowed(model: type[BaseModel], path: Path) -> str:
    section = section_at(model, path[:-1])
    if section is None:
        return ""
    names = list(section.model_fields)
    close = difflib.get_close_matches(str(path[-1]), names, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{guess}; allowed here: {', '.join(names)}"


def _show(value: Any) -> str:
    text = redacted(repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _expected(item: Any) -> str:
    message: str = item["msg"]
    for prefix in ("Input should be a valid ", "Input should be ", "Input must be ", "Value should have "):
        if message.startswith(prefix):
            return message.removeprefix(prefix)
    return message[0].lower() + message[1:]
