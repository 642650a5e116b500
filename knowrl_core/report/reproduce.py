"""How runs differ, and the command that does one again."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from knowrl_core.config import flatten, load_config, profiles, redacted_values
from knowrl_core.report.read import StoredRun

_NOT_RESULTS: Final = ("run.name", "run.root")
"""What a run is called and where it lies change no number."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A config field in which runs differ.

    Attributes:
        field: Its dotted name.
        values: The value in each run; None where a run's config does not have the field.
    """

    field: str
    values: list[Any]


def config_differences(configs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """The fields in which configs differ, by name.

    Args:
        configs: Configs as ``run.json`` holds them.
    """
    flat = [dict(flatten(config)) for config in configs]
    names = sorted({name for own in flat for name in own if name not in _NOT_RESULTS})
    rows = [Difference(name, [own.get(name) for own in flat]) for name in names]
    return [row for row in rows if any(value != row.values[0] for value in row.values[1:])]


def command(run: StoredRun) -> str:
    """The command that does a run again, under a new name: the profile next to its config, and what differs.

    A fork, and a run whose config changed on the way, end otherwise than one that has its last config from the
    beginning. Passwords in addresses are masked: reports are passed on.
    """
    own = dict(flatten(redacted_values(run.file.config)))
    best, changed = "", None
    for profile in profiles():
        base = dict(flatten(load_config(profile).model_dump(mode="json")))
        differing = {name: value for name, value in own.items() if base.get(name) != value and name not in _NOT_RESULTS}
        if changed is None or len(differing) < len(changed):
            best, changed = profile, differing
    options = [
        f"run.name={run.paths.name}-again",
        *(f"{name}={_yaml(value)}" for name, value in (changed or {}).items()),
    ]
    return " ".join(["knowrl run --config", best, *(f"--set {shlex.quote(item)}" for item in options)])


def _yaml(value: Any) -> str:
    """A value as ``--set`` reads it."""
    plain = isinstance(value, str) and value not in ("null", "~") and not value.startswith(("'", '"', " "))
    return str(value) if plain else json.dumps(value, ensure_ascii=False)
