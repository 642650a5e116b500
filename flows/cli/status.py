"""``knowrl status``: what a run has done, and where it goes on."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import iterations_table, out, printable
from flows.cli.options import ConfigOption, JsonOption, SetOption, locate, resume_command
from knowrl_core.config import DEFAULT_PROFILE, load_config
from knowrl_core.errors import KnowrlError
from knowrl_core.report import best_iteration, iteration_rows
from knowrl_core.storage.layout import RunPaths, stage_keys
from knowrl_core.storage.lock import is_locked
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.verify import committed_manifests


def status(
    run: Annotated[
        str | None, typer.Argument(help="Name of the run or path of its folder; without it, all runs.")
    ] = None,
    config: ConfigOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Show a run's iterations and where it goes on, or list all runs."""
    if run is None:
        root = Path(load_config(config, set_ or []).run.root).expanduser().absolute()
        found = [_describe_any(RunPaths(root, file.parent.name)) for file in sorted(root.glob("*/run.json"))]
        if json_:
            typer.echo(json.dumps(found, indent=2))
            return
        for item in found:
            out.print(printable(f"{item['name']}: {_sentence(item)}"), soft_wrap=True)
        if not found:
            out.print(printable(f"no runs in {root}"), soft_wrap=True)
        return
    paths = locate(run, set_, config)
    item = _describe(paths)
    if json_:
        typer.echo(json.dumps(item, indent=2))
        return
    history = committed_manifests(paths, stage_keys(item["iterations"]))
    out.print(iterations_table(iteration_rows(history), f"run {paths.name}"))
    out.print(printable(_sentence(item)), soft_wrap=True)


def _describe_any(paths: RunPaths) -> dict[str, Any]:
    """As :func:`_describe`; a broken run is described as such, so that it does not hide the others."""
    try:
        return _describe(paths)
    except KnowrlError as error:
        return {"name": paths.name, "folder": str(paths.folder), "state": "cannot be read", "error": error.message}


def _describe(paths: RunPaths) -> dict[str, Any]:
    run_file = RunFile.read(paths)
    iterations = int(run_file.config["run"]["iterations"])
    keys = list(stage_keys(iterations))
    history = committed_manifests(paths, keys)
    last = run_file.attempts[-1] if run_file.attempts else None
    running = is_locked(paths.lock_file)
    # The outcome is written by the process itself; one that was killed could not.
    outcome = "running" if running else ((last.outcome or "killed") if last else "not started")
    return {
        "name": paths.name,
        "folder": str(paths.folder),
        "state": outcome,
        "error": last.error if last and not running else None,
        "iterations": iterations,
        "stages_committed": len(history),
        "stages": len(keys),
        "resume": resume_command(paths),
        "next_stage": next((str(key) for key in keys if key not in history), None),
        "best_iteration": best_iteration(history),
        "rows": [dataclasses.asdict(row) for row in iteration_rows(history)],
    }


def _sentence(item: dict[str, Any]) -> str:
    if "stages" not in item:
        return f"{item['state']}: {item['error']}"
    text = f"{item['state']}, {item['stages_committed']} of {item['stages']} stages committed"
    if item["next_stage"] and item["state"] != "running":
        text += f"; `{item['resume']}` goes on at {item['next_stage']}"
    if item["error"]:
        text += f"\nlast error: {item['error']}"
    return text
