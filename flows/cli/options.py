"""Options that several commands share."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from knowrl_core.config import DEFAULT_PROFILE, Config, build_config, load_config
from knowrl_core.errors import InputError
from knowrl_core.places import expanded
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.roots import is_url, look, run_paths
from knowrl_core.storage.run_file import RunFile

EXIT_INTERRUPTED = 130

ConfigOption = Annotated[
    str, typer.Option("--config", "-c", help="A profile (smoke, cpu, llama31-8b, qwen25-7b) or a YAML file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a config field, such as rl.kl_coef=1e-3."),
]
RunArgument = Annotated[str, typer.Argument(help="Name of the run, or path of its folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def locate(run: str, overrides: list[str] | None, config: str = DEFAULT_PROFILE) -> RunPaths:
    """The run that a name (in ``run.root``) or a path means.

    Raises:
        InputError: A path leads to no run.
    """
    if is_url(run):
        root, _, name = run.rstrip("/").rpartition("/")
        return look(run_paths(root, load_config(config, [f"run.name={name}"]).run.name))
    if "/" in run:
        path = expanded(run).absolute()
        if not (path / "run.json").is_file():
            raise InputError(
                f"{path}: got no run.json, expected the folder of a run",
                hint="`knowrl status` lists the runs in a root; `knowrl run` starts one.",
            )
        return RunPaths(path.parent, path.name)
    places = [item for item in overrides or [] if item.startswith("run.root=")]
    found = load_config(config, [f"run.name={run}", *places])
    return look(run_paths(found.run.root, found.run.name))


def stored_config(paths: RunPaths, overrides: list[str] | None, at: StageKey | None = None) -> Config:
    """The config of a run, overrides on top, at the place where it was found.

    Args:
        paths: The run.
        overrides: ``--set``.
        at: The stage whose config it is; None for what the run was last started with.
    """
    file = RunFile.read(paths)
    data = file.config if at is None else file.config_at(at)
    # The name, too: a folder that was renamed or copied must not go on in the one that it came from.
    data["run"] |= {"root": paths.location, "name": paths.name}
    others = [item for item in overrides or [] if not item.startswith("run.root=")]
    return build_config(data, others, source=str(paths.run_file))


def command(name: str) -> str:
    """A command of this environment as the user can type it: by its name if the shell would find that one."""
    own = Path(sys.executable).parent / name
    found = shutil.which(name)
    return name if not own.exists() or (found and Path(found).samefile(own)) else shlex.quote(str(own))


def resume_command(paths: RunPaths) -> str:
    """The command that goes on with a run, from any folder."""
    return f"{command('knowrl')} resume {shlex.quote(paths.name)} --set run.root={shlex.quote(paths.location)}"
