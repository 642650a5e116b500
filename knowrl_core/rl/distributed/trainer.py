"""Optimizer steps with DeepSpeed."""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.batches import MiniBatch
from knowrl_core.rl.checkpoint import Moments, TrainerState
from knowrl_core.rl.distributed.config import Settings
from knowrl_core.rl.distributed.engine import TrainingEngine
from knowrl_core.rl.distributed.passes import local_device
from knowrl_core.rl.experience import Experience
from knowrl_core.rl.optimizer import moments_of
from knowrl_core.rl.schedule import learning_rate
from knowrl_core.rl.settle import checkpoint_layers, settle_on_bf16
from knowrl_core.rl.trainer import (
    Objective,
    StepOutcome,
    TokenSums,
    next_state,
    non_finite,
    outcome,
    pass_loss,
    resolved_precision,
)


def added_up(values: Tensor) -> Tensor:
    """The sum over all processes, the same in each; on the CPU."""
    there = values.to(local_device())
    dist.all_reduce(there)
    return there.cpu()


class DeepSpeedTrainer:
    """AdamW on a policy that is split over the processes. Each of them calls the same methods in the same order.

    Args:
        model: The policy in float32 and in eval mode (no dropout).
        rl: Learning rate, clip and so on.
        settings: DeepSpeed's config.
        state: Where the run's steps and schedule stand.
        moments: AdamW's state to continue, empty for none.
        objective: What is optimised.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rl: RLConfig,
        settings: Settings,
        state: TrainerState,
        moments: Moments,
        *,
        objective: Objective,
    ) -> None:
        self.model = model
        self.state = state
        self._rl, self._settings, self._objective = rl, settings, objective
        self._moments: Moments = moments
        self._steps = int(moments.get("step", 0))
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self.engine: TrainingEngine

    def begin(self) -> None:
        """Make the weights ready for steps, and hand them to DeepSpeed, which may keep copies of them."""
        precision = resolved_precision(self._rl, local_device())
        if self._rl.gradient_checkpointing:
            checkpoint_layers(self.model)
        if precision == "bf16" and self.state.precision != "bf16":
            settle_on_bf16(self.model)
        self.engine = TrainingEngine(self.model, self._rl, self._settings, self._moments, precision=precision)
        self._moments = {}
        self.state = self.state.model_copy(update={"precision": precision})

    def step(self, mini: MiniBatch, data: Experience) -> StepOutcome:
        """One optimizer step on a mini-batch, whose passes are shared out.

        Raises:
            NonFiniteError: Loss or gradient is not finite, in all processes alike; the weights are as before the step.
        """
        sums = self._backward(mini, data)
        if not math.isfinite(sums.loss):
            raise non_finite("loss", sums.loss, self.state)
        following = next_state(self.state)
        rate = learning_rate(following.schedule_step, self._rl)
        norm = self._apply(rate)
        self.state = following
        self._steps += 1
        return outcome(sums, mini, data, grad_norm=norm, rate=rate)

    def moments(self) -> Moments:
        """AdamW's state by parameter name, in the first process; the others help and get nothing."""
        if not self._steps:
            return {}
        kept = {name: value.cpu() for name, value in self.engine.moments() if self._rank == 0}
        steps = dict.fromkeys(self.engine.parameters, self._steps)
        return moments_of(steps, kept) if self._rank == 0 else {}

    def weights(self) -> dict[str, Tensor] | None:
        """The model's state dict in the first process, if its own tensors are empty there (stage 3); else None."""
        if self.engine.stage < 3:
            return None
        whole = {id(p): value.cpu() for p, value in self.engine.weights() if self._rank == 0}
        named = self.model.state_dict(keep_vars=True)
        return {name: whole.get(id(value), value) for name, value in named.items()}

    def _backward(self, mini: MiniBatch, data: Experience) -> TokenSums:
        """Forward and backward passes of this process; the sums are over all of them."""
        sums = TokenSums()
        weights = data.weights(mini.tasks, self._rl.loss_mean)
        mine = mini.passes[self._rank :: self._world]
        # With split weights or gradients all processes must make equally many passes.
        shortest = min(mini.passes, key=lambda packed: len(packed.input_ids))
        calls = math.ceil(len(mini.passes) / self._world)
        for number in range(calls):
            self.engine.engine.set_gradient_accumulation_boundary(number == calls - 1)
            if number < len(mine):
                part = pass_loss(self.engine, mine[number], data, weights, rl=self._rl, objective=self._objective)
                sums.add(part)
                loss = part.loss * self._world  # DeepSpeed takes the mean over processes
            else:
                loss = self.engine(shortest).logprobs.sum() * 0.0
            self.engine.engine.backward(loss)
        names = TokenSums.__slots__
        total = added_up(torch.tensor([getattr(sums, name) for name in names], dtype=torch.float64))
        return TokenSums(**dict(zip(names, total.tolist(), strict=True)))

    def _apply(self, rate: float) -> float:
        """Clip and step; returns the gradient's norm before."""
        engine = self.engine.engine
        norm = None
        if self.engine.stage == 0:  # DeepSpeed does not tell it, and would make a step with NaN
            gradients = [p.grad for p in self.engine.parameters.values() if p.grad is not None]
            norm = float(torch.nn.utils.get_total_norm(gradients))
            if not math.isfinite(norm):
                raise non_finite("gradient norm", norm, self.state)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        engine.step()
        if not engine.was_step_applied():
            raise non_finite("gradient norm", math.nan, self.state)
        return float(engine.get_global_grad_norm()) if norm is None else norm
