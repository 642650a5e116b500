"""DeepSpeed's engine around a policy or reference, with AdamW's state in and out by parameter name.

DeepSpeed can save and load its own state, but only as pickles, and only for as many processes as wrote them. Here the
moments go through the same safetensors file as those of the torch trainer, so each goes on where the other stopped.
"""

from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from torch import Tensor, nn
from transformers import PreTrainedModel

from knowrl_core.config.rl import RLConfig
from knowrl_core.errors import ArtifactError
from knowrl_core.rl.checkpoint import Moments
from knowrl_core.rl.distributed.config import ZERO, Settings
from knowrl_core.rl.distributed.passes import PassModule
from knowrl_core.rl.forward import Precision
from knowrl_core.rl.head import TokenOutput
from knowrl_core.rl.optimizer import KINDS, adamw, checked_steps, whole_shape
from knowrl_core.rl.tree import PackedPass


class TrainingEngine:
    """A policy with AdamW, split over the processes as the stage says. Its methods are for all processes at once.

    Args:
        model: The policy, with the weights to begin with.
        rl: Learning rate and so on.
        settings: DeepSpeed's config.
        moments: AdamW's state to continue, empty for none.
        precision: Arithmetic.
    """

    def __init__(
        self, model: PreTrainedModel, rl: RLConfig, settings: Settings, moments: Moments, *, precision: Precision
    ) -> None:
        self.stage: int = settings[ZERO]["stage"]
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        steps = common_step(moments, {name: whole_shape(p) for name, p in self.parameters.items()})
        module = PassModule(model, precision, whole=self.stage < 3)
        self.engine: Any = deepspeed.initialize(
            model=module, optimizer=adamw(self.parameters, rl), config=settings, dist_init_required=False
        )[0]
        self._adamw: torch.optim.Optimizer = self.engine.basic_optimizer
        self._create_state(steps)
        for name, parameter in self.parameters.items():
            for kind in KINDS:
                if f"{kind}/{name}" in moments:
                    self._set(parameter, kind, moments[f"{kind}/{name}"])

    def destroy(self) -> None:
        """Take DeepSpeed's hooks off the model, so that weights and moments can be freed."""
        self.engine.destroy()

    def __call__(self, packed: PackedPass) -> TokenOutput:
        """Run one pass."""
        return TokenOutput(*self.engine(packed))

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """AdamW's moments one by one, whole, by the names that a checkpoint gives them."""
        for name, parameter in self.parameters.items():
            for kind in KINDS:
                split = self.stage > 0
                state = self._adamw.state
                yield (
                    f"{kind}/{name}",
                    safe_get_full_optimizer_state(parameter, kind) if split else state[parameter][kind],
                )

    def weights(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The weights one by one, whole (stage 3)."""
        for parameter in self.parameters.values():
            yield parameter, safe_get_full_fp32_param(parameter)

    def _create_state(self, steps: int) -> None:
        """Make AdamW's state, with moments of zero, for what DeepSpeed made of the parameters.

        AdamW itself makes it in its first step; there would be nothing to write into before.
        """
        flats = [flat for group in self._adamw.param_groups for flat in group["params"]]
        if self.stage == 3:  # the groups are empty but during a step
            flats += self.engine.optimizer.fp32_partitioned_groups_flat
        for flat in flats:
            if flat.numel():
                self._adamw.state[flat] = {
                    "step": torch.tensor(float(steps), device=flat.device),
                    **{kind: torch.zeros_like(flat) for kind in KINDS},
                }
        if self.stage in {1, 2}:
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _set(self, parameter: Any, kind: str, value: Tensor) -> None:
        if self.stage == 0:
            self._adamw.state[parameter][kind].copy_(value)
        elif self.stage == 3:
            # safe_set_full_optimizer_state fails where the numbers cannot be shared out evenly.
            part, _ = self.engine.optimizer._get_fp32_opt_state_partition(
                parameter, release_swap_buffers=False, optim_state_key=kind
            )
            start = part.numel() * torch.distributed.get_rank()
            mine = value.flatten()[start : start + part.numel()]
            part[: mine.numel()].copy_(mine)
        elif parameter._hp_mapping is not None:  # else no part of it is here
            parameter.set_full_hp_param(value, kind)


def common_step(moments: Moments, shapes: dict[str, torch.Size]) -> int:
    """The number of steps that the moments have seen: one for all parameters, as DeepSpeed keeps it.

    A parameter that never got a gradient has moments of zero after any number of steps.

    Raises:
        ArtifactError: The state is that of another model, or parameters have seen different numbers of steps.
    """
    if not moments:
        return 0
    steps = checked_steps(moments, shapes)
    most = max(steps.values())
    odd = next((name for name, step in steps.items() if step not in {0, most}), None)
    if odd is not None:
        raise ArtifactError(
            f"the optimizer state of {odd} has seen {steps[odd]} steps and others {most}, expected one number for all: "
            "DeepSpeed counts steps once for all parameters",
            hint="Continue this run with rl.trainer: torch.",
        )
    return most
