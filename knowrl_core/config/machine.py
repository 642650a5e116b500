"""Settings that belong to the machine: programs, hosts, and where passwords and keys are sent.

A config of somebody else (parameters of a flow run, the record of a copied run) may not choose them. They stand at
their default, are named by the person at the command line, or by the machine's environment in ``KNOWRL_ALLOW``.
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from knowrl_core.config.model import Config
from knowrl_core.errors import InputError
from knowrl_core.places import expanded

ALLOW: Final = "KNOWRL_ALLOW"
"""Environment variable: words ``FIELD=VALUE`` and ``path=FOLDER``, or ``*`` for everything."""

PATH: Final = "path"
"""The word for folders and ``s3://`` prefixes that flow runs may read from and write to."""

PROGRAM_FILES: Final = ("engine.vllm.python", "rl.deepspeed.hostfile", "rl.deepspeed.config")
"""Fields that name a file: a program, hosts to log in to, settings with further output files."""

MACHINE_FIELDS: Final = (*PROGRAM_FILES, "engine.vllm.args", "engine.vllm.urls", "tracking.uri")
"""All fields of that kind: arguments of vLLM load plugins, its key goes to the URLs, MLflow's password to the URI."""

Setting = tuple[str, str]
"""A field and one text that it names."""


def settings_of(config: Config) -> tuple[Setting, ...]:
    """What a config chooses of the machine beside the defaults; files absolute, lists item by item."""
    data, default = config.model_dump(mode="json"), Config().model_dump(mode="json")
    found: list[Setting] = []
    for field in MACHINE_FIELDS:
        value = _at(data, field)
        if value is None or value == _at(default, field):
            continue
        found += [_setting(field, text) for text in (value if isinstance(value, list) else [value])]
    return tuple(found)


def _setting(field: str, text: object) -> Setting:
    """A field and its text in the one form that is compared."""
    if field in PROGRAM_FILES:
        return field, str(expanded(str(text)).absolute())
    return field, str(text).rstrip("/") if field == "engine.vllm.urls" else str(text)


def _at(data: Mapping[str, object], field: str) -> object:
    value: object = data
    for part in field.split("."):
        assert isinstance(value, Mapping)  # noqa: S101 - a whole config
        value = value[part]
    return value


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the machine's environment allows to configs of others.

    Attributes:
        everything: No question is asked.
        settings: Fields with a value each.
        places: Folders and prefixes of object stores.
    """

    everything: bool
    settings: frozenset[Setting]
    places: tuple[str, ...]

    @classmethod
    def here(cls) -> Self:
        """As the environment says.

        Raises:
            InputError: ``KNOWRL_ALLOW`` cannot be read.
        """
        try:
            words = shlex.split(os.environ.get(ALLOW, ""))
        except ValueError as error:
            raise InputError(f"{ALLOW}: {error}, expected words FIELD=VALUE with quotes as in a shell") from None
        pairs = []
        for word in words:
            name, sign, value = word.partition("=")
            if word != "*" and not (sign and value and name in (*MACHINE_FIELDS, PATH)):
                fields = ", ".join(MACHINE_FIELDS)
                raise InputError(f"{ALLOW}: got {word!r}, expected *, {PATH}=FOLDER, or =VALUE after one of {fields}")
            if name == PATH and "://" not in value and not Path(value).is_absolute():
                raise InputError(f"{ALLOW}: got {word!r}, expected an absolute folder or s3://BUCKET/PREFIX")
            pairs.append((name, value))
        return cls(
            everything="*" in words,
            settings=frozenset(_setting(*pair) for pair in pairs if pair[0] in MACHINE_FIELDS),
            places=tuple(value for name, value in pairs if name == PATH),
        )

    def strange(self, settings: tuple[Setting, ...]) -> list[Setting]:
        """Those that are not allowed."""
        return [] if self.everything else [item for item in settings if item not in self.settings]


def inside(place: str, allowed: tuple[str, ...]) -> bool:
    """Whether a file, folder or URL is one of the allowed places or below one, links followed."""
    for other in allowed:
        if "://" in place or "://" in other:
            base = other.rstrip("/")
            if ".." not in place.split("/") and (place.rstrip("/") == base or place.startswith(f"{base}/")):
                return True
        elif expanded(place).resolve().is_relative_to(expanded(other).resolve()):
            return True
    return False
