"""``knowrl status --watch``: follow a run that another process does, until it ends."""

import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import typer
from rich.live import Live

from flows.cli.console import is_live, out, printable, stage_line
from flows.cli.describe import Seen, Watched, sentence
from flows.cli.guarding import firing_line
from flows.cli.view import Iterations, RunView
from knowrl_core.errors import ArtifactError
from knowrl_core.report import StageProgress, Standing
from knowrl_core.report.scale import rough_duration
from tasks.summary import counts, stage_summary

EVERY: Final = 1.0
"""Seconds between two looks at a folder."""
EVERY_REMOTE: Final = 15.0
"""Seconds between two looks at an object store."""
LINE: Final = 15.0
"""Seconds between two lines about one stage, where there is no terminal."""
BROKEN: Final = 5
"""Looks in a row at which something may be unreadable: a stage may be removed just then, to be done again."""


def watch(watched: Watched, *, as_json: bool) -> int:
    """Show the run again and again until it ends.

    Args:
        watched: The run.
        as_json: A JSON object a line.

    Returns:
        The exit code: 0 if it completed or was stopped by a guard, else 1.

    Raises:
        ArtifactError: Something of it is broken, and stays so.
        InputError: It is gone.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Control-C: the cursor is shown again
    live = not as_json and is_live(out, sys.stdout)
    last = _drawn(watched) if live else _told(watched, _json_line if as_json else _Lines())
    if not as_json:
        out.print(printable(sentence(last.item)), soft_wrap=True)
    return 0 if last.item["state"] in {"completed", "stopped"} else 1


def is_over(item: dict[str, Any]) -> bool:
    """Whether nothing more is to come: not before a run begins, nor between two legs of a relay."""
    state = item["state"]
    return not (state in {"running", "not started"} or (state == "completed" and item["next_stage"]))


def _drawn(watched: Watched) -> Seen:
    with Live(console=out, transient=True, auto_refresh=False, vertical_overflow="crop") as live:
        shown: tuple[Standing, Iterations] | None = None

        def draw(seen: Seen) -> None:
            nonlocal shown
            if shown is None or shown[0] is not seen.standing:
                shown = seen.standing, Iterations(seen.standing)
            live.update(RunView(seen.standing, seen.progress, seen.note, shown[1]), refresh=True)

        last = _told(watched, draw)
    out.print(RunView(last.standing, None))
    return last


def _told(watched: Watched, tell: Callable[[Seen], None]) -> Seen:
    """Tell of each look; returns the last."""
    broken = 0
    while True:
        try:
            seen = watched.look()
        except ArtifactError:
            broken += 1
            if broken == BROKEN:
                raise
        else:
            broken = 0
            tell(seen)
            if is_over(seen.item):
                return seen
        time.sleep(EVERY_REMOTE if watched.remote else EVERY)


def _json_line(seen: Seen) -> None:
    typer.echo(json.dumps(seen.item))
    sys.stdout.flush()


class _Lines:
    """Prints what is new, and now and then how far the stage under way is."""

    def __init__(self) -> None:
        self._stages: set[str] | None = None
        self._firings = 0
        self._said = -LINE

    def __call__(self, seen: Seen) -> None:
        history, firings = seen.standing.history, list(seen.standing.firings)
        if self._stages is None:
            out.print(printable(f"{seen.item['name']}: {sentence(seen.item)}"), soft_wrap=True)
            self._firings = len(firings)
        else:
            for key, manifest in history.items():
                if str(key) not in self._stages:
                    out.print(stage_line(key, stage_summary(manifest, history)), soft_wrap=True)
            for firing in seen.item["guards"][self._firings :]:
                out.print(f"[yellow]warning:[/] {printable(firing_line(firing))}", soft_wrap=True)
            self._firings = len(firings)
        self._stages = {str(key) for key in history}
        if seen.progress is not None and time.monotonic() - self._said >= LINE:
            self._said = time.monotonic()
            out.print(printable(_progress_line(seen.standing, seen.progress)), soft_wrap=True)


def _progress_line(standing: Standing, now: StageProgress) -> str:
    left, whole = standing.stage_left(now), standing.run_left(now)
    parts = [f"{now.stage}: {counts(now)}" if now.total else f"{now.stage}: begun"]
    if now.tokens_per_second:
        parts.append(f"{now.tokens_per_second:,.0f} tokens/s")
    if left is not None:
        parts.append(f"{rough_duration(left)} left")
    parts.append(f"run {standing.fraction(now):.0%}")
    if whole is not None:
        parts.append(f"{rough_duration(whole)} left")
    return ", ".join(parts)
