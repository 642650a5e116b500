"""The update: rollouts and a policy in, a new checkpoint and its training log out."""

import gc
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from knowrl_core.errors import InputError, StageError
from knowrl_core.rl.advantages import RolloutBatch, algorithm
from knowrl_core.rl.batches import mini_batches, rollout_batches
from knowrl_core.rl.checkpoint import load_model, load_state, save_checkpoint
from knowrl_core.rl.experience import Experience, Floats
from knowrl_core.rl.forward import check_model_fits
from knowrl_core.rl.job import Phase, UpdateJob, UpdateProgress, UpdateResult
from knowrl_core.rl.packing import PromptUnit
from knowrl_core.rl.records import rollout_records, step_record, summary
from knowrl_core.rl.rollout import PromptGroup
from knowrl_core.rl.trainer import Trainer, all_logprobs
from knowrl_core.storage.schemas import StepRecord

Progress = Callable[[UpdateProgress], None]


def run_update(job: UpdateJob, *, progress: Progress | None = None) -> UpdateResult:
    """Train the policy on the rollouts and write the new checkpoint.

    Order: log-probabilities of the reference (whose memory is freed then), log-probabilities of the policy, advantages
    a rollout batch, optimizer steps, checkpoint. On the CPU equal jobs give equal bytes if torch has as many threads.

    Without rollouts (none given, or all of them left out) weights and optimizer state are carried on unchanged into
    the new checkpoint, and ``metrics["skipped"]`` is 1.

    Args:
        job: What to do.
        progress: Called as the work goes on.

    Returns:
        Records and metrics. ``job.output_dir`` is complete; making it durable and moving it is the caller's part.

    Raises:
        InputError: The job contradicts itself.
        ArtifactError: A model or an optimizer state cannot be loaded.
        StageError: Not finite, out of memory, or the checkpoint cannot be written. ``output_dir`` does not exist then.
    """
    if job.output_dir.exists():
        raise InputError(
            f"output_dir {job.output_dir} exists, expected a new path",
            hint="Remove it or choose another one; an update never writes over a checkpoint.",
        )
    if job.rl.kl_coef > 0 and job.reference_dir is None:
        raise InputError(
            f"rl.kl_coef is {job.rl.kl_coef} and reference_dir is not set, expected the folder of the initial model",
            hint="Set reference_dir, or rl.kl_coef to 0.",
        )
    try:
        with _out_of_memory_named(job):
            return _run(job, progress or (lambda _: None))
    except BaseException:
        shutil.rmtree(job.output_dir, ignore_errors=True)
        raise


def _run(job: UpdateJob, progress: Progress) -> UpdateResult:
    def report(phase: Phase, done: int, total: int, step: StepRecord | None = None) -> None:
        progress(UpdateProgress(phase=phase, done=done, total=total, step=step))

    rl = job.rl
    kept = [rollout for rollout in job.rollouts if rollout.longest_prompt <= rl.max_prompt_tokens]
    data = Experience.of(kept)
    batches = rollout_batches(len(kept), size=rl.rollout_batch_size, seed=job.shuffle_seed)
    # The passes of the first epoch serve for the log-probabilities, too. So the first step repeats the same
    # arithmetic, and its ratios are 1 to the last bit.
    first = list(mini_batches(data, batches, rl, epoch=0, seed=job.shuffle_seed))
    passes = [packed for mini in first for packed in mini.passes]

    def logprobs(model: PreTrainedModel, phase: Phase) -> Floats:
        _check(model, data)
        report(phase, 0, len(passes))
        return all_logprobs(
            model,
            passes,
            data.n_tokens,
            precision=rl.precision,
            on_pass=lambda done: report(phase, done, len(passes)),
        )

    penalised = bool(kept) and rl.kl_coef > 0 and job.reference_dir is not None
    own_reference = job.reference_dir is not None and job.reference_dir.resolve() == job.policy_dir.resolve()
    if penalised and not own_reference and job.reference_dir is not None:
        data.reference = logprobs(load_model(job.reference_dir, job.device), "reference")
        _free(job.device)  # before the policy is loaded: two models are never in memory together

    state, moments = load_state(job.optimizer_dir)
    trainer = Trainer(load_model(job.policy_dir, job.device), rl, state, moments)
    del moments
    steps: list[StepRecord] = []
    if kept:
        trainer.begin()
        data.policy = logprobs(trainer.model, "policy")
        if penalised and own_reference:
            data.reference = data.policy
        data.advantages = _advantages(data, batches, rl.algorithm, rl.kl_coef)
        later = (mini_batches(data, batches, rl, epoch=e, seed=job.shuffle_seed) for e in range(1, rl.epochs))
        plan = [*first, *(mini for epoch in later for mini in epoch)]
        report("train", 0, len(plan))
        for done, mini in enumerate(plan, start=1):
            outcome = trainer.step(mini, data)
            steps.append(step_record(trainer.state.global_step, mini, outcome))
            report("train", done, len(plan), steps[-1])

    report("save", 0, 1)
    save_checkpoint(trainer.model, trainer.moments(), trainer.state, source=job.policy_dir, output=job.output_dir)
    report("save", 1, 1)
    return UpdateResult(
        rollouts=tuple(rollout_records(data, batches)),
        steps=tuple(steps),
        metrics=summary(data, steps, left_out=len(job.rollouts) - len(kept)),
    )


def _advantages(data: Experience, batches: Sequence[Sequence[int]], name: str, kl_coef: float) -> Floats:
    advantages = np.zeros(data.n_tokens)
    compute = algorithm(name)
    lengths = np.diff(data.starts)
    for members in batches:
        verdicts, tokens = data.select(members)
        batch = RolloutBatch(
            rewards=data.rewards[verdicts],
            lengths=lengths[verdicts],
            tasks=data.task[verdicts],
            policy=data.policy[tokens],
            reference=None if data.reference is None else data.reference[tokens],
        )
        advantages[tokens] = compute(batch, kl_coef)
    return advantages


def _check(model: PreTrainedModel, data: Experience) -> None:
    tokens = (max(*unit.prompt, *map(max, unit.responses)) for units in data.units for unit in units)
    check_model_fits(model, longest=max(r.longest_sequence for r in data.rollouts), largest_token=max(tokens))


def _free(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def _out_of_memory_named(job: UpdateJob) -> Iterator[None]:
    """Turn what the allocators raise into an error that names the lever."""
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
