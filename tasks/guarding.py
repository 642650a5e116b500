"""The guards within a run: asked at the end of each evaluation, and again where they ended the run."""

from knowrl_core.guards import (
    DECISION,
    GUARD_TABLE,
    Stop,
    active,
    judge_iteration,
    last_evaluated,
    standing_stop,
)
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import StageKey
from knowrl_core.storage.schemas import GuardRecord
from tasks.context import RunContext


def ask_guards(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """Ask the guards about the iteration whose evaluation is about to be committed, and write what follows."""
    firings, decision = judge_iteration(ctx.config.guards, ctx.paths, ctx.history, key.iteration, writer.metrics)
    writer.write(GUARD_TABLE, GuardRecord, firings)
    writer.path(DECISION).write_text(decision.text(), encoding="utf-8")
    fired = {item.guard for item in firings}
    writer.metrics["guards/fired"] = len(fired)
    writer.metrics |= {f"guards/{name}": float(name in fired) for name in active(ctx.config.guards)}
    for item in firings:
        ctx.reporter.warning(f"{key}: guard {item.guard} ({item.action}): {item.message}")
    if decision.reason and not decision.stop:
        ctx.reporter.message(
            f"rollback: iteration {key.iteration + 1} starts from iteration {decision.parent}, with the learning rate "
            f"times {decision.learning_rate_factor:g}"
        )


def stop_now(ctx: RunContext) -> Stop | None:
    """Whether a guard ends the run here; says so, and how to go on."""
    stop = standing_stop(ctx.config.guards, ctx.paths, ctx.history)
    if stop is not None:
        ctx.reporter.warning(
            f"stopped after iteration {stop.iteration}: {stop.reason}. To go on, resume with {stop.way_on()}"
        )
    return stop


def overruled(ctx: RunContext) -> bool:
    """Whether a guard ended the run, and today's config says otherwise; says where it goes on."""
    iteration = last_evaluated(ctx.history)
    if iteration is None or not ctx.decision(iteration).stop:
        return False
    # A decision is part of a committed stage: an action of rollback that was set after it comes too late.
    ctx.reporter.message(
        f"the guards no longer stop the run after iteration {iteration}; it goes on from iteration "
        f"{ctx.parent(iteration + 1)}, as was decided then, without a rollback"
    )
    return True
