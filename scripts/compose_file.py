"""Read ``docker-compose.yml`` as far as processes of this machine can follow it."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dotenv.parser import parse_stream

_VARIABLE = re.compile(
    r"\$(?:\$|(?P<bare>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<kind>:[-?])(?P<rest>(?:[^{}]|\$\{[^{}]*\})*))?\})"
)


class ComposeError(Exception):
    """The file, or the environment that it needs, is not as expected."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service.

    Attributes:
        name: Its name, which is its host name for the others, too.
        command: Program and arguments; empty where the image decides.
        environment: Its environment, without that of the machine.
        port: The port on which it listens, if it has one.
        published: The port of the machine under which people reach it.
        volumes: Where it mounts each named volume, by the volume's name.
        healthcheck: Program and arguments whose success says that it is healthy.
        after: For each service that must come before it, the condition.
        restart: Whether it is started again when it ends.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    port: int | None
    published: int | None
    volumes: dict[str, str]
    healthcheck: tuple[str, ...]
    after: dict[str, str]
    restart: bool


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of an ``.env`` file; quotes, comments, ``export`` and variables in values as compose reads them.

    Raises:
        ComposeError: A line is none.
    """
    found: dict[str, str] = {}
    with path.open(encoding="utf-8") as file:
        for line in parse_stream(file):
            text = line.original.string
            if line.error:
                number = line.original.line + len(text) - len(text.lstrip("\n"))
                raise ComposeError(f"{path}:{number}: got {text.strip()!r}, expected NAME=VALUE")
            if line.key is None or line.value is None:
                continue
            literal = text.partition("=")[2].lstrip().startswith("'")
            found[line.key] = line.value if literal else interpolate(line.value, {**found, **os.environ})
    return found


def interpolate(value: Any, environment: Mapping[str, str]) -> Any:
    """Put variables in, in all texts of a value.

    They are ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}`` and ``$$``; a default may hold others.

    Raises:
        ComposeError: A variable that must be set is not, or is empty.
    """
    if isinstance(value, dict):
        return {key: interpolate(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, environment) for item in value]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        name, kind, rest = match["bare"] or match["name"], match["kind"], match["rest"]
        if name is None:
            return "$"
        known = environment.get(name, "")
        if not known and kind == ":?":
            raise ComposeError(f"variable {name} is empty, expected a value in .env: {rest}")
        return known or (_VARIABLE.sub(put, rest) if kind == ":-" else "")

    return _VARIABLE.sub(put, value)


def read_services(
    path: Path,
    environment: Mapping[str, str],
    profiles: frozenset[str] = frozenset(),
    also: Collection[str] = (),
) -> dict[str, Service]:
    """The services of a compose file, in its order.

    Args:
        path: The file.
        environment: The variables that it names.
        profiles: Profiles whose services are among them, beside those in no profile.
        also: Names of further services.

    Raises:
        ComposeError: A variable is missing.
    """
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    chosen = {
        name: body
        for name, body in document["services"].items()
        if not body.get("profiles") or profiles & set(body["profiles"]) or name in also
    }
    return {name: _service(name, interpolate(body, environment)) for name, body in chosen.items()}


def _service(name: str, body: dict[str, Any]) -> Service:
    published, _, port = str((body.get("ports") or [""])[0]).rpartition(":")
    port = port or (body.get("expose") or [""])[0]
    check = body.get("healthcheck", {}).get("test", [])
    mounts = [str(mount).split(":") for mount in body.get("volumes", [])]
    return Service(
        name=name,
        command=tuple(str(part) for part in body.get("command", [])),
        environment={key: str(value) for key, value in (body.get("environment") or {}).items()},
        port=int(port) if port else None,
        published=int(published.rpartition(":")[2]) if published else None,
        volumes={mount[0]: mount[1] for mount in mounts if re.fullmatch(r"[a-z][a-z0-9_-]*", mount[0])},
        healthcheck=tuple(str(part) for part in check[1:]),
        after={other: rule["condition"] for other, rule in (body.get("depends_on") or {}).items()},
        restart=body.get("restart", "no") != "no",
    )
