"""An update that several processes compute together."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.backend import PolicyTrainer
from knowrl_core.rl.checkpoint import Moments, TrainerState, load_model, save_model, save_state
from knowrl_core.rl.distributed.config import ZERO, Settings
from knowrl_core.rl.distributed.passes import ForwardEngine, local_device
from knowrl_core.rl.distributed.trainer import DeepSpeedTrainer, added_up
from knowrl_core.rl.experience import Floats
from knowrl_core.rl.forward import PackedModel, Precision
from knowrl_core.rl.head import TokenOutput
from knowrl_core.rl.job import UpdateJob
from knowrl_core.rl.trainer import Objective
from knowrl_core.rl.tree import PackedPass


class DeepSpeedBackend:
    """This process's part of it; the process group is there already.

    An error in one process is not shared with the others: its process ends, and so the launcher ends all of them. Only
    what is not finite has to be agreed on, since an update can go on after it.

    Args:
        settings: DeepSpeed's config.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._split = settings[ZERO]["stage"] == 3
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self._trainer: DeepSpeedTrainer | None = None
        self.main = self._rank == 0

    def load(self, folder: Path, device: str) -> PreTrainedModel:
        """The model of a folder; at stage 3 no process ever holds all of its weights."""
        if not self._split:
            return load_model(folder, device)
        # While it lives, transformers splits what it loads.
        setting = HfDeepSpeedConfig(self._settings)  # type: ignore[no-untyped-call]
        try:
            return load_model(folder, device)
        finally:
            del setting
            unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]

    def logprobs(
        self,
        model: PreTrainedModel,
        passes: Sequence[PackedPass],
        n_tokens: int,
        *,
        precision: Precision,
        on_pass: Callable[[int], None],
    ) -> Floats:
        """Compute every so-manieth pass here and put all of them together."""
        if self._trainer is not None and self._trainer.model is model:
            return self._logprobs(self._trainer.engine, passes, n_tokens, on_pass)
        if not self._split:
            return self._logprobs(PackedModel(model, precision, device=local_device()), passes, n_tokens, on_pass)
        engine = ForwardEngine(model, self._settings, precision)
        values = self._logprobs(engine, passes, n_tokens, on_pass)
        engine.destroy()
        return values

    @torch.no_grad()
    def _logprobs(
        self,
        run: Callable[[PackedPass], TokenOutput],
        passes: Sequence[PackedPass],
        n_tokens: int,
        on_pass: Callable[[int], None],
    ) -> Floats:
        mine = passes[self._rank :: self._world]
        shortest = min(passes, key=lambda packed: len(packed.input_ids))
        own = np.zeros(n_tokens)
        for number in range(math.ceil(len(passes) / self._world)):
            if number < len(mine):
                own[mine[number].cell.numpy()] = run(mine[number]).logprobs.double().cpu().numpy()
            elif self._split:  # the others need the weights that are here
                run(shortest)
            on_pass(min((number + 1) * self._world, len(passes)))
        values: Floats = added_up(torch.from_numpy(own)).numpy()
        return values

    def trainer(
        self, model: PreTrainedModel, rl: RLConfig, state: TrainerState, moments: Moments, *, objective: Objective
    ) -> PolicyTrainer:
        """AdamW over all processes."""
        self._trainer = DeepSpeedTrainer(model, rl, self._settings, state, moments, objective=objective)
        return self._trainer

    def release(self) -> None:
        """End the engine, whose hooks would keep weights and moments alive."""
        if self._trainer is not None:
            self._trainer.engine.destroy()
            self._trainer = None

    def save(self, trainer: PolicyTrainer, job: UpdateJob) -> None:
        """Write the checkpoint in the first process, which gathers it in its CPU memory: weights, then moments."""
        model = trainer.model
        weights = trainer.weights() if isinstance(trainer, DeepSpeedTrainer) else None
        if self.main:
            save_model(model, source=job.policy_dir, output=job.output_dir, weights=weights)
        del weights
        moments = trainer.moments()
        if self.main:
            save_state(model, moments, trainer.state, output=job.output_dir)
