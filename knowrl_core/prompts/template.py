"""A prompt template: a file with turns, whose variables are filled with data."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, cast

from jinja2 import StrictUndefined, TemplateError
from jinja2 import Template as JinjaTemplate
from jinja2.sandbox import ImmutableSandboxedEnvironment

from knowrl_core.engines.base import Turn
from knowrl_core.errors import InputError

Role = Literal["system", "user", "assistant"]

MAX_BYTES: Final = 256 * 1024
"""Largest template file; a prompt of that size would fit into no model."""

_MARKER = re.compile(r"\s*\[\[\s*(\w+)\s*\]\]\s*")
_ROLES: Final = ("system", "user", "assistant")


class Part(NamedTuple):
    """One turn of a template, not rendered yet."""

    role: Role
    text: str
    line: int
    """Line of the file, from 1, on which ``text`` begins."""


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt template, split into turns.

    Attributes:
        name: The config field that chose it, such as ``verdict_free``.
        sha256: Hash of the file's bytes, for the lineage.
        source: Where it came from, as the user wrote it.
        parts: Its turns. They are split before anything is rendered, so no task text can forge a turn.
    """

    name: str
    sha256: str
    source: str
    parts: tuple[Part, ...]

    def render(self, **variables: Any) -> tuple[Turn, ...]:
        """Fill the template.

        Values are data: Jinja marks or turn marks inside them stay plain text. White space around a turn is dropped,
        and a last assistant turn is the beginning of the response.

        Raises:
            InputError: The template uses a variable that was not given, or a turn comes out empty.
        """
        turns = []
        for part in self.parts:
            try:
                content = compile_part(part.text).render(variables).strip()
            except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as exc:
                raise InputError(
                    f"{self.source}: the {part.role} turn at line {part.line} cannot be filled: {exc}",
                    hint="Correct the template; the comments at the top of the built-in ones list the variables.",
                ) from exc
            if not content:
                raise InputError(
                    f"{self.source}:{part.line}: got an empty {part.role} turn, expected text",
                    hint="Write the turn, or remove its marker line.",
                )
            turns.append(Turn(role=part.role, content=content))
        return tuple(turns)


def parse_template(name: str, raw: bytes, source: str) -> Template:
    """Split a template file into turns.

    A line ``[[system]]``, ``[[user]]`` or ``[[assistant]]`` begins a turn. Before the first there may be comment lines
    that begin with ``#``.

    Args:
        name: Name of the template.
        raw: The file's bytes (UTF-8, with or without byte order mark).
        source: Path for messages.

    Raises:
        InputError: The file is too large, not UTF-8, or its turns are not in an order that chat models accept.
    """
    if len(raw) > MAX_BYTES:
        raise InputError(f"{source}: got {len(raw):,} bytes, expected at most {MAX_BYTES:,}: is this a template?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw[: exc.start].count(b"\n") + 1
        raise InputError(
            f"{source}:{line}: got byte 0x{raw[exc.start]:02x}, expected UTF-8", hint="Save the file as UTF-8."
        ) from None
    parts = _split(text, source)
    _check_order(parts, source)
    return Template(name, hashlib.sha256(raw).hexdigest(), source, tuple(parts))


def _split(text: str, source: str) -> list[Part]:
    parts: list[Part] = []
    lines: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if marker := _MARKER.fullmatch(line):
            role = marker[1]
            if role not in _ROLES:
                raise InputError(
                    f"{source}:{number}: got the marker [[{role}]], expected [[system]], [[user]] or [[assistant]]",
                    hint="Correct the marker; if the line is meant as text, put something else on it.",
                )
            lines = []
            parts.append(Part(cast(Role, role), "", number + 1))
        elif parts:
            lines.append(line)
            parts[-1] = parts[-1]._replace(text="\n".join(lines))
        elif line.strip() and not line.lstrip().startswith("#"):
            raise InputError(
                f"{source}:{number}: got text before the first turn, expected a marker line such as [[user]]",
                hint="Comments before the first marker begin with '#'.",
            )
    return parts


def _check_order(parts: list[Part], source: str) -> None:
    if not any(part.role == "user" for part in parts):
        raise InputError(
            f"{source}: got no user turn, expected at least one", hint="Add a line [[user]] and the question below it."
        )
    previous = "start"
    allowed = {"start": ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",)}
    for part in parts:
        if part.role not in allowed[previous]:
            raise InputError(
                f"{source}:{part.line - 1}: got [[{part.role}]] after {previous}, expected "
                f"{' or '.join(f'[[{role}]]' for role in allowed[previous])}",
                hint="At most one system turn comes first; then user and assistant alternate, beginning with user.",
            )
        previous = part.role


def environment() -> ImmutableSandboxedEnvironment:
    """The Jinja environment of all templates: no loader, no globals, no attributes that could reach Python."""
    env = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,  # prompts are plain text; escaping would change the task
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals.clear()
    return env


@lru_cache(maxsize=64)
def compile_part(text: str) -> JinjaTemplate:
    """Compile a turn. Cached here, so that templates themselves stay plain data that can be pickled."""
    return environment().from_string(text)
