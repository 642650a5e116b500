"""``knowrl status``: what a run has done, and where it goes on."""

import dataclasses
import json
from typing import Annotated, Any

import typer

from flows.cli.console import iterations_table, out, printable
from flows.cli.guarding import firing_line, stopped
from flows.cli.options import ConfigOption, JsonOption, SetOption, locate, resume_command, stored_config
from knowrl_core.config import DEFAULT_PROFILE, load_config
from knowrl_core.errors import KnowrlError
from knowrl_core.guards import find_stop, read_firings
from knowrl_core.report import IterationRow, best_iteration, iteration_rows
from knowrl_core.storage.layout import RunPaths
from knowrl_core.storage.roots import is_running, runs_in
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.verify import committed_manifests
from tasks.starting import starting_points

SHOWN = 10
"""Firings of guards, and starting points, that are listed on the terminal."""


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
        root = load_config(config, set_ or []).run.root
        found = [_describe_any(paths) for paths in runs_in(root)]
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
    out.print(iterations_table([IterationRow(**row) for row in item["rows"]], f"run {paths.name}"))
    firings = item["guards"]
    if len(firings) > SHOWN:
        out.print(f"the last {SHOWN} of {len(firings)} firings of guards (--json lists all):")
    for firing in firings[-SHOWN:]:
        out.print(printable(firing_line(firing)), soft_wrap=True)
    out.print(printable(_sentence(item)), soft_wrap=True)


def _describe_any(paths: RunPaths) -> dict[str, Any]:
    """As :func:`_describe`; a broken run is described as such, so that it does not hide the others."""
    try:
        return _describe(paths)
    except KnowrlError as error:
        return {"name": paths.name, "folder": paths.shown, "state": "cannot be read", "error": error.message}


def _describe(paths: RunPaths) -> dict[str, Any]:
    run_file = RunFile.read(paths)
    iterations = int(run_file.config["run"]["iterations"])
    keys = run_file.stages
    history = committed_manifests(paths, keys)
    last = run_file.attempts[-1] if run_file.attempts else None
    running = is_running(paths)
    # The outcome is written by the process itself; one that was killed could not.
    stop = None if running else find_stop(stored_config(paths, None).guards, paths, history, iterations)
    outcome = "running" if running else ((last.outcome or "killed") if last else "not started")
    return {
        "name": paths.name,
        "folder": paths.shown,
        "state": "stopped" if stop else outcome,
        "error": last.error if last and not running else None,
        "iterations": iterations,
        "stages_committed": len(history),
        "stages": len(keys),
        "resume": resume_command(paths),
        "starting_points": [str(key) for key in starting_points(paths, keys)],
        "next_stage": next((str(key) for key in keys if key not in history), None),
        "best_iteration": best_iteration(history),
        "stopped": stopped(stop, paths) if stop else None,
        "guards": [dataclasses.asdict(row) for row in read_firings(paths, history)],
        "rows": [dataclasses.asdict(row) for row in iteration_rows(history)],
    }


def _sentence(item: dict[str, Any]) -> str:
    if "stages" not in item:
        return f"{item['state']}: {item['error']}"
    text = f"{item['state']}, {item['stages_committed']} of {item['stages']} stages committed"
    if item["stopped"]:
        text += f"\n{item['stopped']}"
    elif item["next_stage"] and item["state"] != "running":
        text += f"; `{item['resume']}` goes on at {item['next_stage']}"
    points = item["starting_points"]
    if len(points) > 1:
        more = " and earlier ones (--json lists all)" if len(points) > SHOWN else ""
        text += f"\n`resume --from` and `fork --at` can start at once at {', '.join(points[-SHOWN:])}{more}"
    if item["error"]:
        text += f"\nlast error: {item['error']}"
    return text
