"""The update: rollouts and a policy in, a new checkpoint and its training log out."""

import shutil
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from knowrl_core.errors import InputError
from knowrl_core.rl import lora
from knowrl_core.rl.average import AVERAGE, write_average
from knowrl_core.rl.backend import Backend, PolicyTrainer, Restorable, TorchBackend
from knowrl_core.rl.batches import MiniBatch, StepTasks, pack_step, plan_steps, rollout_batches
from knowrl_core.rl.checkpoint import load_model, load_state, save_checkpoint
from knowrl_core.rl.experience import Experience, Floats
from knowrl_core.rl.forward import check_model_fits
from knowrl_core.rl.job import Phase, UpdateJob, UpdateProgress, UpdateResult
from knowrl_core.rl.memory import free, out_of_memory_named
from knowrl_core.rl.prepare import fill_in, has_signal
from knowrl_core.rl.records import rollout_records, step_record, summary
from knowrl_core.rl.snapshot import Saver, Snapshot
from knowrl_core.rl.trainer import NonFiniteError, resolved_precision
from knowrl_core.storage.schemas import StepRecord

Progress = Callable[[UpdateProgress], None]


def run_update(job: UpdateJob, *, progress: Progress | None = None, backend: Backend | None = None) -> UpdateResult:
    """Train the policy on the rollouts and write the new checkpoint.

    Order: log-probabilities of the reference (whose memory is freed then), log-probabilities of the policy, advantages
    a rollout batch, optimizer steps, checkpoint. On the CPU equal jobs give equal bytes if torch has as many threads.

    Without rollouts (none given, or all of them left out) weights and optimizer state are carried on unchanged into
    the new checkpoint, and ``metrics["skipped"]`` is 1. Steps whose advantages are all zero, with nothing else in the
    loss, are left out and counted in ``metrics["steps_without_signal"]``.

    Args:
        job: What to do.
        progress: Called as the work goes on.
        backend: Where passes and steps are computed; this process if None.

    Returns:
        Records and metrics. ``job.output_dir`` is complete; making it durable and moving it is the caller's part.

    Raises:
        InputError: The job contradicts itself.
        ArtifactError: A model or an optimizer state cannot be loaded.
        StageError: Not finite, out of memory, or the checkpoint cannot be written. ``output_dir`` does not exist then.
    """
    backend = backend or TorchBackend()
    # Only where it is written: another process may come here when it is there already.
    if backend.main and job.output_dir.exists():
        raise InputError(
            f"output_dir {job.output_dir} exists, expected a new path",
            hint="Remove it or choose another one; an update never writes over a checkpoint.",
        )
    if job.objective == "policy_gradient" and job.rl.kl_coef > 0 and job.reference_dir is None:
        raise InputError(
            f"rl.kl_coef is {job.rl.kl_coef} and reference_dir is not set, expected the folder of the initial model",
            hint="Set reference_dir, or rl.kl_coef to 0.",
        )
    run = _Run(job, progress or (lambda _: None), backend)
    try:
        with out_of_memory_named(job):
            try:
                trained = run.train()
            except NonFiniteError:
                if job.non_finite == "raise":
                    raise
                return run.carry_on(non_finite=True)
            # Here, and not in train(), so that its model and optimizer are gone.
            return trained or run.carry_on()
    except BaseException:
        if backend.main:
            shutil.rmtree(job.output_dir, ignore_errors=True)
        raise


class _Run:
    """One update."""

    def __init__(self, job: UpdateJob, progress: Progress, backend: Backend) -> None:
        self.job, self.rl, self.backend, self._progress = job, job.rl, backend, progress
        self.kept = [r for r in job.rollouts if r.longest_prompt <= job.rl.max_prompt_tokens]
        self.data = Experience.of(self.kept)
        self.batches = rollout_batches(
            [rollout.label for rollout in self.kept],
            size=job.rl.rollout_batch_size,
            seed=job.shuffle_seed,
            balance=job.rl.balance_batches,
        )
        self.without_signal = 0

    def train(self) -> UpdateResult | None:
        """Make the optimizer steps and write the checkpoint; None, and nothing is written, if there is none to make."""
        job, data = self.job, self.data
        if not self.kept:
            return None
        # The passes of the first epoch serve for the log-probabilities, too. So the first step repeats the same
        # arithmetic, and its ratios are 1 to the last bit.
        saver = Saver(job.snapshot_dir, job.snapshot_key, self.rl.save_steps)
        saved = saver.load()
        first = [pack_step(group, data, self.rl) for group in self._plan(0)] if saved is None else []
        own_reference = job.reference_dir is not None and job.reference_dir.resolve() == job.policy_dir.resolve()
        if saved is not None:
            data.reference = saved.reference
        elif job.objective == "policy_gradient" and job.reference_dir is not None and not own_reference:
            data.reference = self._logprobs(self.backend.load(job.reference_dir, job.device), first, "reference")
            free(job.device)  # before the policy is loaded: two models are never in memory together
        state, moments = load_state(job.optimizer_dir, policy=job.policy_dir)
        model = self.backend.load(job.policy_dir, job.device)
        self._check(model)
        if self.rl.lora.rank:
            lora.attach(model, self.rl.lora, job.optimizer_dir, seed=job.shuffle_seed)
        trainer = self.backend.trainer(model, self.rl, state, moments, objective=job.objective)
        del moments
        trainer.begin()
        if job.objective == "policy_gradient":
            data.policy = self._logprobs(model, first, "policy") if saved is None else saved.policy
            data.reference = data.policy if own_reference else data.reference
            fill_in(data, self.batches, self.rl)
        planned = [group for epoch in range(self.rl.epochs) for group in self._plan(epoch)]
        useful = [g for g in planned if job.objective == "supervised" or has_signal(data, g.tasks, self.rl)]
        self.without_signal = len(planned) - len(useful)
        if not useful:
            return None
        steps: list[StepRecord] = []
        if saved is not None and isinstance(trainer, Restorable):
            steps = saved.steps
            trainer.restore(saved.weights, saved.moments, saved.state)
        made = len(steps)
        del saved
        self._report("train", made, len(useful))
        for done, group in enumerate(useful[made:], start=made + 1):
            mini = pack_step(group, data, self.rl)  # one at a time: packed, all epochs together could be large
            outcome = trainer.step(mini, data)
            steps.append(step_record(trainer.state.global_step, mini, outcome))
            self._report("train", done, len(useful), steps[-1])
            if done < len(useful) and saver.due(done):
                self._save(saver, trainer, steps)
        self._report("save", 0, 1)
        adapters = lora.detach(model) if self.rl.lora.rank else None
        self.backend.save(trainer, job)
        if adapters is not None:
            lora.save(adapters, self.rl.lora, job.output_dir)
        return self._result(steps)

    def _save(self, saver: Saver, trainer: PolicyTrainer, steps: Sequence[StepRecord]) -> None:
        if not isinstance(trainer, Restorable):
            return
        data = self.data
        reference = None if data.reference is data.policy else data.reference
        saver.save(Snapshot(list(steps), trainer.state, trainer.trained(), trainer.moments(), data.policy, reference))

    def carry_on(self, *, non_finite: bool = False) -> UpdateResult:
        """Write the policy and optimizer state that the update began with as its checkpoint."""
        job = self.job
        self.backend.release()
        free(job.device)
        self._report("save", 0, 1)
        if self.backend.main:
            state, moments = load_state(job.optimizer_dir, policy=job.policy_dir)
            model = load_model(job.policy_dir, "cpu")  # a device may be too small for a model that is split
            adapters = None
            if self.rl.lora.rank:
                lora.attach(model, self.rl.lora, job.optimizer_dir, seed=job.shuffle_seed)
                adapters = lora.detach(model)
            save_checkpoint(model, moments, state, source=job.policy_dir, output=job.output_dir)
            if adapters is not None:
                lora.save(adapters, self.rl.lora, job.output_dir)
        return self._result([], non_finite=non_finite)

    def _result(self, steps: Sequence[StepRecord], *, non_finite: bool = False) -> UpdateResult:
        job = self.job
        if self.backend.main and job.average_dir is not None:
            write_average(job.average_dir, job.output_dir, job.average_decay, job.output_dir / AVERAGE)
        self._report("save", 1, 1)
        return UpdateResult(
            rollouts=() if non_finite else tuple(rollout_records(self.data, self.batches)),
            steps=tuple(steps),
            metrics={
                **summary(self.data, steps),
                "left_out_prompt_too_long": float(len(job.rollouts) - len(self.kept)),
                "steps_without_signal": float(self.without_signal),
                "non_finite": float(non_finite),
            },
        )

    def _plan(self, epoch: int) -> list[StepTasks]:
        return list(plan_steps(self.data, self.batches, self.rl, epoch=epoch, seed=self.job.shuffle_seed))

    def _check(self, model: PreTrainedModel) -> None:
        tokens = (max(*unit.prompt, *map(max, unit.responses)) for units in self.data.units for unit in units)
        check_model_fits(model, longest=max(r.longest_sequence for r in self.kept), largest_token=max(tokens))

    def _logprobs(self, model: PreTrainedModel, plan: Sequence[MiniBatch], phase: Phase) -> Floats:
        self._check(model)
        passes = [packed for mini in plan for packed in mini.passes]
        self._report(phase, 0, len(passes))
        return self.backend.logprobs(
            model,
            passes,
            self.data.n_tokens,
            precision=resolved_precision(self.rl, torch.device(self.job.device)),
            on_pass=lambda done: self._report(phase, done, len(passes)),
        )

    def _report(self, phase: Phase, done: int, total: int, step: StepRecord | None = None) -> None:
        self._progress(UpdateProgress(phase=phase, done=done, total=total, step=step))
