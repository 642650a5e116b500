"""Whose verdicts give the labels, where it is not the policy that is rewarded."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from knowrl_core.rl.average import AVERAGE
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.retention import CHECKPOINT
from knowrl_core.verdicts.channel import CHANNEL_VOTES
from knowrl_core.worker import EngineSpec
from tasks.context import RunContext

FROZEN_TEACHERS: Final = ("initial", *CHANNEL_VOTES)
"""Values of ``consensus.reward.votes`` with which the initial model judges."""

TEACHER = "teacher"
"""The stream of the teacher's verdicts: the initial model must not repeat the noise of the policy's."""


def teacher_spec(ctx: RunContext, parent: int) -> EngineSpec | None:
    """What the worker is to load to judge in the teacher's place; None where the policy gives the labels itself.

    Args:
        ctx: The run.
        parent: The iteration that the one at hand starts from.
    """
    votes = ctx.config.consensus.reward.votes
    if votes == "policy":
        return None
    if votes in FROZEN_TEACHERS:
        return ctx.engine_spec(0)
    spec, weights = ctx.engine_spec(parent), _average_weights(ctx, parent)
    if not weights:
        return spec
    name = f"{AVERAGE}-it{parent:03d}@{weights[0].sha256[:12]}"
    return spec.model_copy(update={"folder": average_folder(ctx, parent), "policy": name})


def teacher_refs(ctx: RunContext, parent: int) -> list[FileRef]:
    """What the teacher judges with, as inputs beside the parent's checkpoint, which holds the average."""
    votes = ctx.config.consensus.reward.votes
    refs = ctx.checkpoint_refs(0) if votes in FROZEN_TEACHERS and parent else []
    if votes in CHANNEL_VOTES:
        prompts = ctx.inputs.prompts
        refs += ctx.template_refs([prompts.introspect_feasible, prompts.introspect_infeasible])
        refs += ctx.pin_refs("files.feasible", "files.infeasible")
    return refs


def average_folder(ctx: RunContext, parent: int) -> Path:
    """The average of the policy's weights up to an iteration.

    Where that has none the average begins, with the policy itself: the initial model, or what a warm-up left.
    """
    folder = ctx.policy_folder(parent)
    return folder / AVERAGE if _average_weights(ctx, parent) else folder


def _average_weights(ctx: RunContext, parent: int) -> list[FileRef]:
    """The weight files of the average in a checkpoint; none if the checkpoint has no average."""
    return [ref for ref in ctx.checkpoint_refs(parent) if fnmatch(ref.path, f"*/{CHECKPOINT}/{AVERAGE}/*.safetensors")]
