"""From a profile or file and ``--set`` overrides to a validated :class:`Config`."""

import json
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from knowrl_core.config.document import MAX_BYTES, Path, parse_yaml
from knowrl_core.config.model import Config
from knowrl_core.config.problems import describe, field_type, section_at
from knowrl_core.errors import InputError
from knowrl_core.places import expanded
from knowrl_core.resources import shipped
from knowrl_core.storage.files import read_small

DEFAULT_PROFILE = "cpu"
BASE = "base"
"""The key of a YAML file that names the one it builds on."""


def profiles() -> list[str]:
    """Names of the profiles that ship with KnowRL."""
    return sorted(path.stem for path in shipped("configs").glob("*.yaml"))


MayRead = Callable[[FilePath], None]
"""Told of a file before anything is asked of it; raises where it may not be read."""


def _anything(_file: FilePath) -> None:
    """Every file may be read."""


def find_profile(source: str, folder: FilePath | None = None, may_read: MayRead = _anything) -> FilePath:
    """The file that a profile name or a path means.

    Args:
        source: The name or path.
        folder: Where relative paths begin; None is the working directory.
        may_read: Asked about a path; what ships may always be read.

    Raises:
        InputError: There is no such profile or file.
    """
    looks_like_path = source.endswith((".yaml", ".yml")) or "/" in source or "\\" in source
    path = (folder or FilePath()) / expanded(source)
    if looks_like_path:
        may_read(path)
        try:
            if path.is_file():
                return path
            problem = "is a folder" if path.is_dir() else "no such file"
        except OSError as error:  # such as a name that is too long
            problem = error.strerror or str(error)
        raise InputError(
            f"config {source!r}: {problem}", hint=f"Give a YAML file, or a profile: {', '.join(profiles())}."
        )
    if source in profiles():
        return shipped("configs", f"{source}.yaml")
    raise InputError(
        f"unknown profile {source!r}", hint=f"Profiles: {', '.join(profiles())}; or give a path to a YAML file."
    )


def load_config(
    source: str = DEFAULT_PROFILE,
    overrides: Sequence[str] = (),
    *,
    may_read: MayRead = _anything,
) -> Config:
    """Read a profile or YAML file and apply overrides such as ``rl.kl_coef=1e-3``, the last one winning.

    A file may build on another: its key ``base`` names a profile, or a file by its path from there.

    Args:
        source: The profile or file.
        overrides: Fields that win.
        may_read: Asked about each file, also those that it builds on.

    Raises:
        InputError: With every problem that was found, each with file and line or the override that caused it.
    """
    file = find_profile(source, may_read=may_read)
    data, places = _read(file, (), may_read)
    return build_config(data, overrides, source=str(file), places=places)


def _read(file: FilePath, above: tuple[FilePath, ...], may_read: MayRead) -> tuple[dict[str, Any], dict[Path, str]]:
    """Config data of a file on top of its base, and the file and line of each key.

    Args:
        file: The file.
        above: The files that build on it.
        may_read: Asked about the file that it builds on.
    """
    try:
        text = read_small(file, 4 * MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {file}: cannot be read: {error}") from None
    data, lines = parse_yaml(text, str(file))
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise InputError(f"{file}:1: got {type(data).__name__}, expected sections such as 'run:' and 'rl:'")
    places = {path: f"{file}:{line}" for path, line in lines.items()}
    if BASE not in data:
        return data, places
    base, place = data.pop(BASE), places[BASE,]
    chain = (*above, file.resolve())
    if not isinstance(base, str):
        raise InputError(f"{place}: {BASE}: got {base!r}, expected the name of a profile, or a path from this file")
    try:
        below = find_profile(base, file.parent, may_read)
    except InputError as error:
        raise InputError(f"{place}: {BASE}: {error.message}", hint=error.hint) from None
    if below.resolve() in chain:
        names = " -> ".join(path.name for path in (*chain, below))
        raise InputError(f"{place}: {BASE}: got a circle ({names}), expected a file that does not build on this one")
    lower, lower_places = _read(below, chain, may_read)
    return deep_merge(lower, data), lower_places | places


def build_config(
    data: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    source: str = "config",
    places: Mapping[Path, str] | None = None,
) -> Config:
    """Validate config data with overrides on top (see :func:`load_config`).

    Args:
        data: The data.
        overrides: Fields that win.
        source: What to call the data in errors.
        places: File and line of keys, for errors.
    """
    places = places or {}
    merged: dict[str, Any] = json.loads(json.dumps(data, default=str))
    origin: dict[Path, str] = {}
    for override in overrides:
        path, value = parse_override(override)
        _insert(merged, path, value, override)
        origin[path] = f"--set {override}"

    def where(path: Path) -> str:
        # An override is named before a line of the file: it is what the user typed last.
        for key, text in reversed(origin.items()):
            if key[: len(path)] == path or path[: len(key)] == key:
                return text
        return next((places[path[:end]] for end in range(len(path), 0, -1) if path[:end] in places), source)

    text = json.dumps(merged, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # Bytes of the command line that are no UTF-8 come as lone surrogates, which JSON cannot hold.
        got = ascii(text[max(error.start - 20, 0) : error.end])
        raise InputError(f"{source} with {len(overrides)} overrides: got {got}, expected text in UTF-8") from None
    try:
        # JSON mode with strict types: lists are taken for tuples, but "8", true or 8.5 never become the number 8.
        return Config.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = describe(error, Config, where)
        raise InputError("\n".join(problems), hint="Nothing was started.") from None


def parse_override(override: str) -> tuple[Path, Any]:
    """Split ``a.b=value``; the value is read as YAML, or taken as it stands where the field is text.

    A field of text takes YAML's null and quoted text, too.
    """
    key, separator, raw = override.partition("=")
    parts = tuple(key.strip().split("."))
    if not separator or not all(parts):
        raise InputError(f"--set {override!r}: expected section.field=value, such as rl.kl_coef=1e-3")
    path: Path = parts
    if section_at(Config, path) is not None:
        raise InputError(f"--set {override!r}: {key!r} is a section; set one of its fields, such as {_example(path)}")
    raw = raw.strip()
    if _is_text(field_type(Config, path)) and raw not in ("null", "~") and not raw.startswith(("'", '"')):
        return path, raw  # a path may hold brackets, colons and hashes, which mean something in YAML
    value, _ = parse_yaml(raw, f"--set {key}")
    return path, "" if value is None and raw == "" else value


def deep_merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` in which the values of ``top`` win, section by section."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = deep_merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _example(path: Path) -> str:
    section = section_at(Config, path)
    assert section is not None  # noqa: S101 - the caller has just found it
    return f"{'.'.join(map(str, path))}.{next(iter(section.model_fields))}=..."


def _is_text(annotation: Any) -> bool:
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return str in options


def _insert(data: dict[str, Any], path: Path, value: Any, override: str) -> None:
    current = data
    for part in path[:-1]:
        below = current.setdefault(str(part), {})
        if not isinstance(below, dict):
            raise InputError(f"--set {override!r}: {part!r} is not a section")
        current = below
    current[str(path[-1])] = value
