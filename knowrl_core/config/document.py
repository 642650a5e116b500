"""YAML with a line number for every key, and nothing executable in it."""

import re
from typing import Any

import yaml

from knowrl_core.errors import InputError

Path = tuple[str | int, ...]

MAX_BYTES = 1_000_000
"""A config is written by hand; whatever is larger is not one (and could be a YAML alias bomb)."""


MAX_DEPTH = 50
"""Levels of nesting; a config has four."""


class _Loader(yaml.SafeLoader):
    """Safe loader that reads 5e-7 as a number (YAML 1.2 does; PyYAML's YAML 1.1 takes it for a string)."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp) for tag, regexp in rules if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
    ]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_FLOAT = r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|nan)$"
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), list("-+0123456789."))


def parse_yaml(text: str, source: str) -> tuple[Any, dict[Path, int]]:
    """Parse one YAML document.

    Returns:
        The data, and for each key path its line (from 1).

    Raises:
        InputError: Broken YAML, a duplicate key, an anchor or a tag, or a document above the size limit.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{source}: got {len(text):,} characters, expected a config of at most {MAX_BYTES:,}")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:  # PyYAML's time grows with its square
                raise InputError(f"{source}:{_line(event)}: got more than {MAX_DEPTH} levels, expected a config")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise InputError(f"{source}:{_line(event)}: anchors and aliases are not allowed in a config")
        node = yaml.compose(text, Loader=_Loader)
        lines: dict[Path, int] = {}
        _walk(node, (), lines, source)
        return yaml.load(text, Loader=_Loader), lines  # noqa: S506 - a SafeLoader subclass
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{where}: not valid YAML: {problem}") from None


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _walk(node: yaml.Node | None, path: Path, lines: dict[Path, int], source: str) -> None:
    if node is None:
        return
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{source}:{line}: got a key that is not a plain word")
            if key.value in seen:
                raise InputError(f"{source}:{line}: key {key.value!r} is given twice")
            seen.add(key.value)
            lines[(*path, key.value)] = line
            _walk(value, (*path, key.value), lines, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, source)
