"""Our own side: :class:`knowrl_core.rl.trainer.Trainer` on the rollouts. All that depends on its interface is here."""

from typing import Any

import torch

from benchmarks.rl_rollouts import RolloutSet, StepReport
from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.batches import mini_batches
from knowrl_core.rl.checkpoint import TrainerState
from knowrl_core.rl.experience import Experience
from knowrl_core.rl.trainer import Trainer


class PackedSide:
    """One step of the trainer over all rollouts.

    Args:
        model: The policy in float32.
        rl: Its settings; ``train_batch_size`` must hold all verdicts.
        batch: The rollouts.
    """

    def __init__(self, model: Any, rl: RLConfig, batch: RolloutSet) -> None:
        self._data = Experience.of(batch.rollouts)
        self._data.old = batch.old
        self._data.reference = batch.reference if rl.kl_coef else None
        self._data.advantages = batch.advantages
        everything = tuple(range(len(batch.rollouts)))
        (self._mini,) = mini_batches(self._data, [everything], rl, epoch=0, seed=0)
        zeros = {
            f"{moment}/{name}": torch.zeros_like(p)
            for name, p in model.named_parameters()
            for moment in ("exp_avg", "exp_avg_sq")
        }
        # AdamW's state exists from the start, as it does in all updates of a run but the first.
        self._trainer = Trainer(model, rl, TrainerState(), {"step": torch.tensor(1), **zeros})
        self._trainer.begin()
        self.label = f"packed, {rl.micro_token_budget} tokens a pass"

    def warm_up(self) -> None:
        """A whole step: it is quick."""
        self.step()

    def step(self) -> StepReport:
        """One optimizer step over all verdicts."""
        outcome = self._trainer.step(self._mini, self._data)
        return StepReport(outcome.loss, outcome.grad_norm)
