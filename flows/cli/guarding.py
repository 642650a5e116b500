"""What guards did to a run, in words for the terminal."""

from collections.abc import Mapping
from typing import Any

from flows.cli.options import resume_command
from knowrl_core.config.guards import GuardsConfig
from knowrl_core.guards import Stop, standing_stop
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest


def find_stop(
    paths: RunPaths, history: Mapping[StageKey, Manifest], config: GuardsConfig, iterations: int
) -> Stop | None:
    """Why the run ended early; None if it did not, or if the guards of its config let it go on.

    Args:
        paths: The run.
        history: Its committed stages.
        config: The guards of its config.
        iterations: Iterations that it was to have.
    """
    stop = standing_stop(config, paths, history)
    return stop if stop and stop.iteration < iterations else None


def stopped(stop: Stop, paths: RunPaths) -> str:
    """That a run was stopped, by what, and how to go on with it."""
    return (
        f"stopped by a guard after iteration {stop.iteration}: {stop.reason}\n"
        f"To go on: {resume_command(paths)} {stop.way_on()}"
    )


def firing_line(firing: Mapping[str, Any]) -> str:
    """A firing on one line."""
    return f"iteration {firing['iteration']}: guard {firing['guard']} ({firing['action']}): {firing['message']}"
