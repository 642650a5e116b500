"""Go back in an open run: remove a stage and all that follow, so that they are done again.

Nothing is removed before the policy that the stage starts from is there: a checkpoint that retention pruned is made
again first, and where that fails (as on a GPU) all stages stay.
"""

import shutil
from collections.abc import Collection

from knowrl_core.errors import InputError, StageError
from knowrl_core.storage.layout import STAGES, UPDATE, StageKey
from knowrl_core.storage.verify import History
from tasks.context import RunContext
from tasks.restore import NotReproducedError, restore_policy
from tasks.starting import check_start, missing_policies


def rewind(
    ctx: RunContext,
    keys: tuple[StageKey, ...],
    history: History,
    start: StageKey | None,
    *,
    flow_run: str | None = None,
    only: Collection[str] = STAGES,
) -> StageKey | None:
    """Remove what is to be done again, because it was asked for or is damaged; nothing if there is no such stage.

    Args:
        ctx: The run; its history ends before the stage that is next afterwards.
        keys: Its stages in order.
        history: What was found of it. Damage is repaired.
        start: A stage to go back to.
        flow_run: Id of the Prefect flow run, which goes back once.
        only: Stages that are done here. The policy of others is made where they are done.

    Returns:
        The stage that is next; None if all are committed.

    Raises:
        InputError: The run has not come to ``start``.
        NotReproducedError: A pruned checkpoint that ``start`` needs cannot be made again.
    """
    next_key = history.next_key
    asked = None if ctx.run_file.went_back(flow_run) else start
    place = len(history.committed)
    if asked is not None and (asked not in keys or keys.index(asked) > place):
        check_start(ctx.paths, keys, asked)
        raise InputError(
            f"{asked}: run {ctx.paths.name!r} cannot start there: {next_key} is damaged",
            hint=f"--repair without --from does {next_key} and what follows again.",
        )
    if asked is not None and (asked in history.committed or history.problem is not None):
        if asked.stage in only:
            restore_policy(ctx, asked)
        ctx.reporter.message(f"going back: {asked} and what follows are done again")
        ctx.run_file.note_redone(str(asked), "asked for", flow_run)
        return _remove(ctx, keys, asked)
    if history.problem is not None and next_key is not None:
        return _repair(ctx, keys, next_key, history.problem.message, only)
    return next_key


def _repair(
    ctx: RunContext, keys: tuple[StageKey, ...], damaged: StageKey, reason: str, only: Collection[str]
) -> StageKey:
    """Remove the first damaged stage and all that follow.

    Where the policy that it starts from was pruned and does not come back to the last bit, the update that made it, and
    before it those that made its own policy, are done again as well.
    """
    start, why = damaged, ""
    try:
        if damaged.stage in only:
            restore_policy(ctx, damaged)
    except NotReproducedError as error:
        start = _missing_update(ctx, damaged)
        why = f" (the checkpoints before {damaged} were pruned)"
        ctx.reporter.warning(error.message)
    except StageError:
        update = _missing_update(ctx, damaged)
        ctx.reporter.warning(
            f"{damaged} needs a pruned checkpoint; --repair --from {update} does that update anew instead, with the "
            "config as it is now"
        )
        raise
    ctx.reporter.warning(f"repair: {reason}; {start} and what follows are done again{why}")
    ctx.run_file.note_redone(str(start), reason)
    return _remove(ctx, keys, start)


def _missing_update(ctx: RunContext, key: StageKey) -> StageKey:
    """The first update whose checkpoint is missing on the way to a stage."""
    return StageKey(missing_policies(ctx.paths, key)[0], UPDATE)


def _remove(ctx: RunContext, keys: tuple[StageKey, ...], start: StageKey) -> StageKey:
    """Remove a stage and all that follow. A process that dies meanwhile leaves a run that only ends earlier."""
    paths = ctx.paths
    for key in reversed(keys[keys.index(start) :]):
        folder = paths.stage(key)
        shutil.rmtree(paths.kept(key), ignore_errors=True)
        paths.withdraw(folder)
        if folder.exists():
            gone = paths.partial(key)
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        ctx.history.pop(key, None)
    ctx.run_file.write(paths)  # not before: a flow run that is tried again would think that it had gone back
    return start
