"""The page of all commands, from the Typer app and the classes of its errors."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from flows.cli.main import app
from flows.cli.options import EXIT_INTERRUPTED
from knowrl_core import errors

_INTRO = """# Commands

`knowrl COMMAND --help` prints the same. `--config` and `--set` mean the same everywhere ([all
fields](configuration.md)). Messages and progress go to standard error, results to standard output; `--json` prints
what a script would read.
"""


def commands_page() -> str:
    """The page as Markdown."""
    parts = [_INTRO, _exit_codes()]
    for path, command in walk(typer.main.get_command(app)):
        if not hasattr(command, "commands"):
            parts += _command(path, command)
    return "\n".join(parts)


def walk(command: Any, path: str = "knowrl") -> Iterator[tuple[str, Any]]:
    """A command and all below it, each with the words that call it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from walk(below, f"{path} {name}")


def _exit_codes() -> str:
    meanings = {
        0: "Done, or stopped by a guard as the config says.",
        EXIT_INTERRUPTED: "Interrupted by a signal; what is committed stands.",
    }
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.KnowrlError) and "exit_code" in vars(kind) and kind is not errors.KnowrlError:
            meanings[kind.exit_code] = _text(inspect.getdoc(kind))
    rows = [f"| {code} | {meanings[code]} |" for code in sorted(meanings)]
    note = (
        "`knowrl doctor` ends with 1 if the profile cannot run here, `knowrl seeds check` with 2 if the files have "
        "errors. A mistake in the command line itself is 2, too; nothing has been created then."
    )
    return "\n".join(["## Exit codes", "", "| code | meaning |", "|---|---|", *rows, "", note, ""])


def _command(path: str, command: Any) -> list[str]:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item.param_type_name == "option" and not item.hidden]
    required = [_flags(item)[0] for item in options if item.required]
    usage = " ".join([path, *map(_placeholder, arguments), *required, "[OPTIONS]"])
    lines = [f"## {path}", "", *inspect.cleandoc(command.help or "").splitlines(), "", "```text", usage, "```", ""]
    rows = [f"| `{_placeholder(item)}` | {_help(item)} | |" for item in arguments]
    for item in options:
        flags = ", ".join(f"`{flag}`" for flag in _flags(item))
        rows.append(f"| {flags} | {_help(item)} | {_default(item)} |")
    return [*lines, "| argument, option | meaning | default |", "|---|---|---|", *rows, ""]


def _flags(item: Any) -> list[str]:
    """``--option VALUE``, with the value behind the first name only."""
    value = "" if item.is_flag else f" {_metavar(item)}"
    first, *others = [*item.opts, *item.secondary_opts]
    return [f"{first}{value}", *others]


def _placeholder(item: Any) -> str:
    name = item.metavar or item.name.upper()
    several = f"{name}..." if item.nargs == -1 else name
    return several if item.required else f"[{several}]"


def _metavar(item: Any) -> str:
    if item.metavar:
        return str(item.metavar)
    annotation = item.type_descriptor.annotation
    kind = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    return {str: "TEXT", int: "N", Path: "PATH"}.get(kind, item.name.rstrip("_").upper())


def _help(item: Any) -> str:
    text = _text(item.help)
    annotation = item.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        text += " One of " + ", ".join(f"`{value}`" for value in get_args(annotation)) + "."
    bounds = [
        f"at least {item.min}" if item.min is not None else "",
        f"at most {item.max}" if item.max is not None else "",
    ]
    if any(bounds):
        text += f" ({' and '.join(filter(None, bounds))})"
    return text + (" May be repeated." if item.multiple and "repeated" not in text else "")


def _default(item: Any) -> str:
    if item.required:
        return "required"
    return (
        "" if item.default in (None, False, ()) else f"`{str(item.default).lower() if item.is_flag else item.default}`"
    )


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")
