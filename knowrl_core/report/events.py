"""What happened to a run beside its numbers: guards, rollbacks, config changes, its warm-up and where it was forked."""

from dataclasses import dataclass
from typing import Any, Final

from knowrl_core.config import redacted
from knowrl_core.report.read import StoredRun
from knowrl_core.storage.layout import StageKey

GUARD: Final = "guard"
ROLLBACK: Final = "rollback"
STOP: Final = "stop"
CONFIG: Final = "config"
WARMUP: Final = "warm-up"
FORK: Final = "fork"
REDONE: Final = "redone"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at an iteration.

    Attributes:
        iteration: The iteration.
        kind: One of the constants of this module.
        text: What happened, in words.
        subject: The guard or the config field that it is about.
    """

    iteration: int
    kind: str
    text: str
    subject: str = ""


def events(run: StoredRun, *, warmup: bool) -> list[Event]:
    """All events of a run, by iteration.

    Args:
        run: The run.
        warmup: Its iteration 1 is the warm-up.
    """
    found = [Event(1, WARMUP, "supervised warm-up on the seeds")] if warmup else []
    past = run.file.forked_from
    if past is not None:
        at = StageKey.parse(past.at)
        found.append(Event(at.iteration, FORK, f"forked from {past.run} at {past.at}"))
    for change in run.file.changes:
        if change.first_stage is not None:
            text = f"{change.field}: {shown(change.old)} → {shown(change.new)}, from {change.first_stage} on"
            found.append(Event(StageKey.parse(change.first_stage).iteration, CONFIG, text, change.field))
    for redone in run.file.redone:
        found.append(Event(StageKey.parse(redone.first_stage).iteration, REDONE, f"done again: {redacted(redone.why)}"))
    for row in run.firings():
        found.append(Event(row.iteration, GUARD, f"{row.guard} ({row.action}): {row.message}", row.guard))
    for iteration, decision in run.decisions().items():
        if decision.stop and run.stop is not None and run.stop.iteration == iteration:
            found.append(Event(iteration, STOP, run.stop.reason))
        elif decision.parent != iteration:
            found.append(
                Event(iteration, ROLLBACK, f"the next iteration starts from iteration {decision.parent} again")
            )
    last = max((key.iteration for key in run.history), default=0)
    return sorted((item for item in found if item.iteration <= last), key=lambda item: item.iteration)


def shown(value: Any) -> str:
    """A config value as text, without passwords."""
    return redacted(value) if isinstance(value, str) else redacted(repr(value))
