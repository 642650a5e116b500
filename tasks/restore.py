"""Make a pruned checkpoint again, from the artifacts that it was made from.

On the CPU an update is a function of its inputs to the last bit, and all of them are kept: so a checkpoint that
retention removed can come back, byte for byte, and any stage of the past can be started from.
"""

import copy
import shutil

from knowrl_core.config import build_config
from knowrl_core.errors import StageError
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.files import fsync_folder, fsync_tree
from knowrl_core.storage.layout import UPDATE, StageKey
from knowrl_core.storage.retention import CHECKPOINT, PRUNED, prune
from tasks.context import RunContext
from tasks.stage import Stage
from tasks.starting import missing_policies
from tasks.update import STAGE as UPDATE_STAGE
from tasks.warmup import STAGE as WARMUP_STAGE


class NotReproducedError(StageError):
    """An update does not give the bytes that it gave, as on a GPU."""


def restore_policy(ctx: RunContext, key: StageKey) -> None:
    """Make the checkpoints again that a stage needs.

    Raises:
        NotReproducedError: An update does not give the bytes that it gave.
    """
    missing = missing_policies(ctx.paths, key)
    if missing:
        names = ", ".join(map(str, missing))
        ctx.reporter.message(f"{key} needs pruned checkpoints: those of iteration {names} are made again")
    for place, iteration in enumerate(missing):
        ctx.worker.begin_stage()
        _restore(ctx, StageKey(iteration, UPDATE))
        if place:  # the one before has served
            before = missing[place - 1]
            prune(ctx.paths, {before: ctx.history[StageKey(before, UPDATE)]}, keep=set())


def _restore(ctx: RunContext, key: StageKey) -> None:
    stage: Stage = WARMUP_STAGE if ctx.is_warmup(key.iteration) else UPDATE_STAGE
    then = copy.copy(ctx)
    then.config = build_config(ctx.run_file.config_at(key), source=f"the config of {key}")
    writer = StageWriter(
        ctx.paths, key, seed=ctx.seed, config=stage.config(then.config), inputs=stage.inputs(then, key)
    )
    try:
        stage.body(then, key, writer)
        folder = ctx.paths.stage(key)
        prefix = ctx.paths.relative(folder / CHECKPOINT) + "/"
        made = {ref.path: ref.sha256 for ref in writer.outputs() if ref.path.startswith(prefix)}
        expected = {ref.path: ref.sha256 for ref in ctx.checkpoint_refs(key.iteration)}
        if made != expected:
            wrong = sorted(name for name in made.keys() | expected.keys() if made.get(name) != expected.get(name))
            raise NotReproducedError(
                f"the pruned checkpoint of iteration {key.iteration} cannot be made again: {len(wrong)} of its files "
                f"differ, for example {wrong[0]}; an update gives the same bytes on the CPU only, with as many threads",
                hint=f"Start from a point whose checkpoint is there (`knowrl status {ctx.config.run.name}` lists them) "
                f"or do the update and what follows anew with --from {key}.",
            )
        fsync_tree(writer.folder)
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)  # what a prune that was cut short left
        (writer.folder / CHECKPOINT).rename(folder / CHECKPOINT)
        ctx.paths.publish(folder / CHECKPOINT)
        ctx.paths.withdraw(folder / PRUNED)
        (folder / PRUNED).unlink(missing_ok=True)
        fsync_folder(folder)
    finally:
        writer.discard()
        shutil.rmtree(ctx.paths.kept(key), ignore_errors=True)
