"""Guards and the committed stages of a run: asking them, and finding what they said."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from knowrl_core.config.guards import GuardsConfig
from knowrl_core.guards.decide import decide, point_of
from knowrl_core.guards.decision import DECISION, Decision
from knowrl_core.guards.signals import ask
from knowrl_core.storage.layout import EVALUATE, GENERATE, UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.retention import has_checkpoint
from knowrl_core.storage.schemas import GuardRecord
from knowrl_core.storage.tables import read_table

GUARD_TABLE: Final = "guards.parquet"

History = Mapping[StageKey, Manifest]


@dataclass(frozen=True, slots=True)
class Stop:
    """A run that a guard ended before its last iteration."""

    iteration: int
    """The iteration that it ended after."""

    reason: str
    """Guard, value and bound, in words."""

    guards: tuple[str, ...]
    """The guards that ask for it."""

    def way_on(self) -> str:
        """What to change to go on, as options of the command line."""
        changes = " ".join(f"--set guards.{name}.action=warn" for name in self.guards)
        bounded = any(name != "non_finite" for name in self.guards)
        return f"{changes} (or another bound)" if bounded else changes


def read_decision(paths: RunPaths, iteration: int) -> Decision:
    """What followed from an iteration's evaluation."""
    return Decision.read(paths.file(StageKey(iteration, EVALUATE), DECISION))


def parent_of(paths: RunPaths, iteration: int) -> int:
    """The iteration whose checkpoint, optimizer state and pool an iteration starts from.

    That is the one before it, unless a guard rolled back to an earlier one. 0 stands for the initial model, without
    optimizer state and pool; iteration 0 itself starts from there.
    """
    return read_decision(paths, iteration - 1).parent if iteration else 0


def judge_iteration(
    config: GuardsConfig, paths: RunPaths, history: History, iteration: int, evaluation: Mapping[str, float]
) -> tuple[list[GuardRecord], Decision]:
    """Ask the guards about an iteration.

    Args:
        config: The guards.
        paths: The run.
        history: The committed stages, with the iteration's update.
        iteration: The iteration.
        evaluation: Metrics of its evaluation.

    Returns:
        What fired, and what follows.
    """
    previous = read_decision(paths, iteration - 1) if iteration else None
    update = history.get(StageKey(iteration, UPDATE))
    metrics = {**(update.metrics if update else {}), **evaluation}
    firings = ask(config, iteration, metrics, previous.lineage if previous else ())
    warmup = iteration > 0 and StageKey(iteration, GENERATE) not in history
    now = point_of(iteration, metrics, warmup=warmup)
    came_from = [point.iteration for point in previous.lineage] if previous else []
    # What was pruned before a guard was told to roll back cannot be gone back to.
    kept = {number for number in came_from if has_checkpoint(paths, number)}
    return firings, decide(config, previous, now, firings, available={0, iteration, *kept})


def find_stop(config: GuardsConfig, paths: RunPaths, history: History, iterations: int) -> Stop | None:
    """Why the run ended early; None if it did not, or if the guards of its config let it go on.

    Args:
        config: The guards of its config.
        paths: The run.
        history: Its committed stages.
        iterations: Iterations that it was to have.
    """
    stop = standing_stop(config, paths, history)
    return stop if stop and stop.iteration < iterations else None


def standing_stop(config: GuardsConfig, paths: RunPaths, history: History) -> Stop | None:
    """Whether a run that a guard ended stays so.

    What was decided stands, but for an end: there the guards of today's config are asked again, so that a run goes on
    when they are told to.

    Args:
        config: Today's guards.
        paths: The run.
        history: Its committed stages.
    """
    iteration = last_evaluated(history)
    if iteration is None or not read_decision(paths, iteration).stop:
        return None
    evaluation = history[StageKey(iteration, EVALUATE)].metrics
    firings, decision = judge_iteration(config, paths, history, iteration, evaluation)
    if not decision.stop or decision.reason is None:
        return None
    strongest = [item.guard for item in firings if item.action == "stop"]
    strongest = strongest or [item.guard for item in firings if item.action == "rollback"]
    return Stop(iteration, decision.reason, tuple(strongest))


def last_evaluated(history: History) -> int | None:
    """The last iteration that is evaluated; None before the first."""
    return max((key.iteration for key in history if key.stage == EVALUATE), default=None)


def read_firings(paths: RunPaths, history: History) -> list[GuardRecord]:
    """All firings of a run, in order."""
    return [
        row
        for key, manifest in history.items()
        if key.stage == EVALUATE and manifest.metrics.get("guards/fired")
        for row in read_table(paths.file(key, GUARD_TABLE), GuardRecord)
    ]
