"""What a person names of the machine at the command line, and what only the record of a run names."""

import json
import shlex

from flows.cli.options import stored_config
from knowrl_core.config import Config, anchored
from knowrl_core.config.machine import Allowed, settings_of
from knowrl_core.errors import InputError
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.remembered import remember, remembered


def named(config: Config) -> Config:
    """A config that the person gave as a whole: what it names of the machine is theirs from now on."""
    remember(settings_of(anchored(config)))
    return config


def confirmed(paths: RunPaths, overrides: list[str] | None, at: StageKey | None = None) -> Config:
    """The config of a run, to go on with (see :func:`~flows.cli.options.stored_config`).

    Args:
        paths: The run.
        overrides: ``--set``.
        at: The stage whose config it is; None for what the run was last started with.

    Raises:
        InputError: Its record names programs, hosts or destinations of passwords that this user never named here.
    """
    config = stored_config(paths, overrides, at)
    settings = settings_of(anchored(config))
    typed = {item.partition("=")[0].strip() for item in overrides or []}
    remember(item for item in settings if item[0] in typed)
    known = remembered()
    strange = [item for item in Allowed.here().strange(settings) if item[0] not in typed and item not in known]
    if strange:
        values = config.model_dump(mode="json")
        fields = dict.fromkeys(field for field, _ in strange)
        again = " ".join(shlex.quote(f"--set={field}={_value(values, field)}") for field in fields)
        raise InputError(
            f"{paths.run_file} names what nobody has named on this machine before:\n"
            + "\n".join(f"{field}: got {text!r}, expected a value given here" for field, text in strange),
            hint="Programs that are started, hosts, and where passwords and keys are sent belong to the machine; a run "
            "that came from elsewhere does not choose them. If they are right for this machine, give them again, once: "
            f"{again}\nElse give others in the same way, or the config of your own by --config.",
        )
    return config


def _value(values: dict[str, object], field: str) -> str:
    """A field's value as ``--set`` takes it."""
    value: object = values
    for part in field.split("."):
        assert isinstance(value, dict)  # noqa: S101 - a whole config
        value = value[part]
    return value if isinstance(value, str) else json.dumps(value)
