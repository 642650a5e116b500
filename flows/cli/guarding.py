"""What guards did to a run, in words for the terminal."""

from collections.abc import Mapping
from typing import Any

from flows.cli.options import resume_command
from knowrl_core.guards import Stop
from knowrl_core.storage.layout import RunPaths


def stopped(stop: Stop, paths: RunPaths) -> str:
    """That a run was stopped, by what, and how to go on with it."""
    return (
        f"stopped by a guard after iteration {stop.iteration}: {stop.reason}\n"
        f"To go on: {resume_command(paths)} {stop.way_on()}"
    )


def firing_line(firing: Mapping[str, Any]) -> str:
    """A firing on one line."""
    return f"iteration {firing['iteration']}: guard {firing['guard']} ({firing['action']}): {firing['message']}"
