"""What the parameters of a flow run may name on the machine of the worker that does it.

Whoever starts a flow run is not the person whose files, programs and passwords the worker has. So parameters, and
records of runs that they point to, are held to what the worker's environment allows (``KNOWRL_ALLOW``). On the command
line the same flows take what the person says.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from knowrl_core.config import Config
from knowrl_core.config.machine import ALLOW, PATH, Allowed, inside, settings_of
from knowrl_core.errors import InputError
from knowrl_core.places import expanded
from knowrl_core.resources import shipped

STARTED_BY_A_WORKER: Final = "PREFECT__FLOW_RUN_ID"
"""Environment variable that Prefect sets for the process of a flow run; the command line takes it away."""

_BUILTIN: Final = "builtin"


def is_remote() -> bool:
    """Whether this process does a flow run that a server handed out."""
    return STARTED_BY_A_WORKER in os.environ


def check_places(places: Mapping[str, str | None], *, writing: bool = False) -> None:
    """Refuse files, folders and URLs outside of what flow runs may use; without a worker nothing is refused.

    Args:
        places: Them, by the parameter that names them; None where it is not given.
        writing: They are written to: the files that ship do not count.

    Raises:
        InputError: Naming the parameter and how to allow it.
    """
    if not is_remote():
        return
    allowed = Allowed.here()
    good = (str(Path.cwd() / Config().run.root), *allowed.places)
    for name, place in places.items():
        read = () if writing else tuple(str(shipped(folder)) for folder in ("configs", "seeds"))
        if place is None or allowed.everything or inside(place, (*good, *read)):
            continue
        raise InputError(
            f"{name}: got {place!r}, expected a place in {' or '.join(good)}: the parameters of a flow run reach no "
            "other place of this machine",
            hint=f"Whoever runs the worker may allow it by {ALLOW}={shlex.quote(f'{PATH}=FOLDER')} in its environment.",
        )


def check_out(out: str | None) -> None:
    """Refuse to write a table where a flow run may not, or over the artifacts of a run.

    Raises:
        InputError: Saying what is expected.
    """
    if out is None or not is_remote():
        return
    check_places({"out": out}, writing=True)
    path = expanded(out).resolve()
    if path.suffix != ".parquet" or any((folder / "run.json").exists() for folder in path.parents):
        raise InputError(f"out: got {out!r}, expected the name of a .parquet file outside of all runs")


def check_profile(file: Path) -> None:
    """Refuse a file of a config that lies elsewhere: that of a profile, or one that it builds on.

    Raises:
        InputError: Naming it.
    """
    check_places({"profile": str(file.absolute())})


def check_config(config: Config) -> None:
    """Refuse a config that chooses programs, hosts, destinations of passwords, or places.

    Args:
        config: With absolute paths.

    Raises:
        InputError: Naming each field and how to allow it.
    """
    if not is_remote():
        return
    strange = Allowed.here().strange(settings_of(config))
    if strange:
        words = " ".join(shlex.quote(f"{field}={text}") for field, text in strange)
        raise InputError(
            "\n".join(f"{field}: got {text!r}, expected what the worker's machine allows" for field, text in strange),
            hint="Programs, hosts and where passwords are sent belong to the machine. Whoever runs the worker may "
            f"allow them in its environment: {ALLOW}={shlex.quote(words)}",
        )
    check_places({"run.root": config.run.root}, writing=True)
    files = {
        **{f"files.{name}": text for name, text in config.files},
        **{f"prompts.{name}": text for name, text in config.prompts},
        **{f"evaluation.benchmarks[{item.name}].path": item.path for item in config.evaluation.benchmarks},
    }
    model = config.model.path
    is_local = model.startswith((".", "/", "~", "\\")) or Path(model).exists()
    check_places(
        {name: None if text == _BUILTIN else text for name, text in files.items()}
        | {"model.path": model if is_local else None}
    )
