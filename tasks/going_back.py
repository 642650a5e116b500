"""Go back in an open run: remove a stage and all that follow, so that they are done again.

Nothing is removed before the policy that the stage starts from is there: a checkpoint that retention pruned is made
again first, and where that fails (as on a GPU) the run is as it was.
"""

import shutil

from knowrl_core.storage.layout import UPDATE, StageKey
from knowrl_core.storage.verify import History
from tasks.context import RunContext
from tasks.restore import NotReproducedError, restore_policy
from tasks.starting import check_start, missing_policies


def rewind(
    ctx: RunContext, keys: tuple[StageKey, ...], history: History, start: StageKey | None, flow_run: str | None
) -> StageKey | None:
    """Remove what is damaged, then what is to be done again; each only if there is such.

    Args:
        ctx: The run; its history ends before the stage that is next afterwards.
        keys: Its stages in order.
        history: What was found of it.
        start: A stage to go back to.
        flow_run: Id of the Prefect flow run, which goes back once.

    Returns:
        The stage that is next; None if all are committed.

    Raises:
        InputError: The run has not come to ``start``.
        NotReproducedError: A pruned checkpoint that ``start`` needs cannot be made again.
    """
    next_key = history.next_key
    try:
        if history.problem is not None and next_key is not None:
            next_key = _repair(ctx, keys, next_key, history.problem.message)
        if start is not None and not ctx.run_file.went_back(flow_run):
            check_start(ctx.paths, keys, start)
            if start in ctx.history:
                restore_policy(ctx, start)
                ctx.reporter.message(f"going back: {start} and what follows are done again")
                ctx.run_file.note_redone(str(start), "asked for", flow_run)
                next_key = _remove(ctx, keys, start)
    except BaseException:
        ctx.worker.close()  # it may have been making a checkpoint
        raise
    return next_key


def _repair(ctx: RunContext, keys: tuple[StageKey, ...], damaged: StageKey, reason: str) -> StageKey:
    """Remove the first damaged stage and all that follow.

    Where the policy that it starts from was pruned and does not come back to the last bit, the update that made it, and
    before it those that made its own policy, are done again as well.
    """
    start, why = damaged, ""
    try:
        restore_policy(ctx, damaged)
    except NotReproducedError as error:
        start = StageKey(missing_policies(ctx.paths, damaged)[0], UPDATE)
        why = f" (the checkpoints before {damaged} were pruned)"
        ctx.reporter.warning(error.message)
    ctx.reporter.warning(f"repair: {reason}; {start} and what follows are done again{why}")
    ctx.run_file.note_redone(str(start), reason)
    return _remove(ctx, keys, start)


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
