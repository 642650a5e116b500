"""``knowrl status``: what a run has done, what it does, and where it goes on."""

import json
from typing import Annotated

import typer

from flows.cli.console import iterations_table, out, printable
from flows.cli.describe import SHOWN, Seen, Watched, describe_any, sentence
from flows.cli.guarding import firing_line
from flows.cli.options import ConfigOption, JsonOption, SetOption, locate
from flows.cli.view import RunView
from flows.cli.watch import watch
from knowrl_core.config import DEFAULT_PROFILE, load_config
from knowrl_core.errors import InputError
from knowrl_core.storage.roots import runs_in


def status(
    run: Annotated[
        str | None, typer.Argument(help="Name of the run or path of its folder; without it, all runs.")
    ] = None,
    config: ConfigOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    json_: JsonOption = False,
    watch_: Annotated[
        bool,
        typer.Option(
            "--watch",
            "-w",
            help="Follow the run until it ends: exit code 0 if it completed or a guard stopped it, 1 if it did not. "
            "With --json a JSON object a line.",
        ),
    ] = False,
) -> None:
    """Show a run's iterations, the stage under way and where it goes on, or list all runs."""
    if run is None:
        if watch_:
            raise InputError("got --watch and no run, expected the name of one", hint="`knowrl status` lists the runs.")
        _list(load_config(config, set_ or []).run.root, as_json=json_)
        return
    watched = Watched(locate(run, set_, config))
    if watch_:
        raise typer.Exit(watch(watched, as_json=json_))
    seen = watched.look()
    if json_:
        typer.echo(json.dumps(seen.item, indent=2))
        return
    _show(seen)


def _list(root: str, *, as_json: bool) -> None:
    found = [describe_any(paths) for paths in runs_in(root)]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for item in found:
        out.print(printable(f"{item['name']}: {sentence(item)}"), soft_wrap=True)
    if not found:
        out.print(printable(f"no runs in {root}"), soft_wrap=True)


def _show(seen: Seen) -> None:
    item = seen.item
    if item["state"] == "running":
        out.print(RunView(seen.standing, seen.progress, seen.note))
    else:
        out.print(iterations_table(seen.standing.rows, f"run {item['name']}"))
        firings = item["guards"]
        if len(firings) > SHOWN:
            out.print(f"the last {SHOWN} of {len(firings)} firings of guards (--json lists all):")
        for firing in firings[-SHOWN:]:
            out.print(printable(firing_line(firing)), soft_wrap=True)
    out.print(printable(sentence(item)), soft_wrap=True)
