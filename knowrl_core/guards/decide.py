"""From what fired in an iteration to where the next one starts."""

from collections.abc import Container, Mapping, Sequence

from knowrl_core.config.guards import GuardsConfig
from knowrl_core.guards.decision import Decision, Point
from knowrl_core.guards.signals import REWARD
from knowrl_core.storage.schemas import GuardRecord


def decide(
    config: GuardsConfig,
    previous: Decision | None,
    now: Point,
    firings: Sequence[GuardRecord],
    *,
    available: Container[int],
) -> Decision:
    """What follows from the firings of an iteration: the strongest of their actions.

    A rollback that ends the run (``after_rollback: end``, or one too many) counts as one all the same: whoever goes on
    from there starts from the best iteration, with the lower learning rate.

    Args:
        config: The guards.
        previous: The decision that this iteration started from; None for iteration 0.
        now: This iteration.
        firings: What fired in it.
        available: Iterations whose checkpoint is there.
    """
    lineage = (*(previous.lineage if previous else ()), now)
    factor, rollbacks = (previous.learning_rate_factor, previous.rollbacks) if previous else (1.0, 0)
    by_action = {action: [item for item in firings if item.action == action] for action in ("stop", "rollback")}
    if by_action["stop"]:
        return _decision(lineage, factor, rollbacks, stop=True, reason=_reason(by_action["stop"]))
    if not by_action["rollback"]:
        return _decision(lineage, factor, rollbacks)
    # Not this iteration itself, however well it scores: a guard has just called it a collapse.
    lineage = lineage[: 1 + lineage.index(best_point(lineage[:-1] or lineage, available))]
    rollbacks += 1
    reason = f"{_reason(by_action['rollback'])}; back to iteration {lineage[-1].iteration}"
    stop = config.after_rollback == "end" or rollbacks > config.max_rollbacks
    if config.after_rollback == "end":
        reason += ", where the run ends (guards.after_rollback is end)"
    elif stop:
        reason += f", where the run ends: {config.max_rollbacks} rollbacks are the most (guards.max_rollbacks)"
    return _decision(lineage, factor * config.learning_rate_factor, rollbacks, stop=stop, reason=reason)


def best_point(lineage: Sequence[Point], available: Container[int]) -> Point:
    """Where a rollback goes to: the best balanced accuracy, the earliest of equals; the first if none is known.

    Args:
        lineage: At least one iteration, oldest first.
        available: Iterations whose checkpoint is there.
    """
    known = {
        point: point.balanced_accuracy
        for point in lineage
        if point.iteration in available and point.balanced_accuracy is not None
    }
    return max(known, key=known.__getitem__) if known else lineage[0]


def point_of(iteration: int, metrics: Mapping[str, float], *, warmup: bool) -> Point:
    """What later guards need to know of an iteration; a warm-up earns no reward.

    Args:
        iteration: Its number.
        metrics: Its metrics, of the update and of the evaluation.
        warmup: It is the warm-up.
    """
    return Point(
        iteration=iteration,
        balanced_accuracy=metrics.get("probe/balanced_accuracy"),
        reward=None if warmup else metrics.get(REWARD),
    )


def _decision(
    lineage: tuple[Point, ...], factor: float, rollbacks: int, *, stop: bool = False, reason: str | None = None
) -> Decision:
    return Decision(
        parent=lineage[-1].iteration,
        lineage=lineage,
        learning_rate_factor=factor,
        rollbacks=rollbacks,
        stop=stop,
        reason=reason,
    )


def _reason(firings: Sequence[GuardRecord]) -> str:
    return "; ".join(f"guard {item.guard}: {item.message}" for item in firings)
