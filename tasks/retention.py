"""Which checkpoints of an open run are pruned."""

from collections.abc import Collection

from knowrl_core.guards import active, best_point, last_evaluated
from knowrl_core.report import probe_scores
from knowrl_core.storage.layout import UPDATE
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.retention import CHECKPOINT, checkpoints_to_keep, has_checkpoint, prune
from tasks.context import RunContext


def apply_retention(ctx: RunContext, *, coming: int | None = None) -> None:
    """Prune the checkpoints that the config does not keep; repeating it changes nothing.

    Args:
        ctx: The run.
        coming: An iteration whose checkpoint is about to be written, and counts already: so there are never more than
            the config says, but for the one that the new one starts from.
    """
    updates: dict[int, Manifest] = {
        key.iteration: manifest
        for key, manifest in ctx.history.items()
        if key.stage == UPDATE and ctx.paths.file(key, CHECKPOINT).exists()
    }
    scores = probe_scores(ctx.history)
    counted = {iteration for iteration in updates if has_checkpoint(ctx.paths, iteration)}  # not half-pruned ones
    if coming is not None:
        counted.add(coming)
    keep = checkpoints_to_keep(
        ctx.config.retention, {iteration: scores.get(iteration) for iteration in counted}, needed=_needed(ctx, counted)
    )
    pruned = prune(ctx.paths, updates, keep)
    if pruned:
        ctx.reporter.message(f"pruned the checkpoint of iteration {', '.join(map(str, pruned))}")


def _needed(ctx: RunContext, kept: Collection[int]) -> set[int]:
    """The iterations that the run may go on from: where the next one starts, and where a guard may roll back to."""
    last = last_evaluated(ctx.history)
    if last is None:
        return set()
    decision = ctx.decision(last)
    needed = {decision.parent}
    if "rollback" in active(ctx.config.guards).values():
        needed.add(best_point(decision.lineage, available={0, *kept}).iteration)
    return needed
