"""What an update says when it runs out of memory."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from knowrl_core.errors import StageError
from knowrl_core.rl.job import UpdateJob
from knowrl_core.rl.packing import PromptUnit
from knowrl_core.rl.rollout import PromptGroup


def free(device: str) -> None:
    """Give back what no object holds any more."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def out_of_memory_named(job: UpdateJob) -> Iterator[None]:
    """Turn what the allocators raise into an error that names the lever.

    Raises:
        StageError: Memory ran out inside the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = str(error)
        exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in message
        if not exhausted:
            raise
        length, task_id = _longest_unit(job)
        budget = job.rl.micro_token_budget
        hint = "Lower rl.micro_token_budget (the result stays the same) or set rl.gradient_checkpointing: true."
        if length > budget:
            hint = (
                "Lowering rl.micro_token_budget cannot help, since a prompt and its verdicts are never split. Set "
                "rl.gradient_checkpointing: true, or lower verdict.k, verdict.sampling.max_new_tokens or "
                "rl.max_prompt_tokens."
            )
        raise StageError(
            f"the update ran out of {job.device} memory: {message.splitlines()[0] if message else 'MemoryError'}; "
            f"expected passes of {max(length, budget)} packed tokens to fit: rl.micro_token_budget is {budget}, and "
            f"the longest prompt with its verdicts (task {task_id}) has {length}",
            hint=hint,
        ) from error


def _longest_unit(job: UpdateJob) -> tuple[int, str]:
    """Packed tokens of the longest prompt with its verdicts that is trained on, and its task; 0 without any."""
    return max(
        (
            (_unit_length(group), rollout.task_id)
            for rollout in job.rollouts
            if rollout.longest_prompt <= job.rl.max_prompt_tokens
            for group in rollout.prompts
        ),
        default=(0, "none"),
    )


def _unit_length(group: PromptGroup) -> int:
    responses = tuple(verdict.response_token_ids for verdict in group.verdicts)
    return PromptUnit(group.prompt_token_ids, responses, cells=()).packed_length
