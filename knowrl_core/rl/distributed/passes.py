"""A packed pass through a model that DeepSpeed holds."""

import gc
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from knowrl_core.rl.distributed.config import Settings
from knowrl_core.rl.forward import PackedModel, Precision
from knowrl_core.rl.head import TokenOutput
from knowrl_core.rl.tree import PackedPass


def local_device() -> torch.device:
    """Where this process computes. Parameters may be elsewhere between layers."""
    return torch.device(get_accelerator().current_device_name())


class PassModule(nn.Module):
    """What the engine wraps: a packed pass in, a tuple of tensors out.

    Autocast is entered in here, since the engine turns off one that was entered outside.
    """

    def __init__(self, model: PreTrainedModel, precision: Precision, *, whole: bool) -> None:
        super().__init__()
        self.model = model
        self._run = PackedModel(model, precision, whole=whole, device=local_device())

    def forward(self, packed: PackedPass) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies, [N] each."""
        output = self._run(packed)
        return output.logprobs, output.entropy


class ForwardEngine:
    """A model whose weights are split over the processes (stage 3), without an optimizer.

    All processes call it equally often.
    """

    def __init__(self, model: PreTrainedModel, settings: Settings, precision: Precision) -> None:
        # Clipping is the optimizer's, and DeepSpeed refuses it without one.
        settings = {key: value for key, value in settings.items() if key != "gradient_clipping"}
        module = PassModule(model, precision, whole=False)
        self._engine: Any = deepspeed.initialize(model=module, config=settings, dist_init_required=False)[0]

    def __call__(self, packed: PackedPass) -> TokenOutput:
        """Run one pass."""
        return TokenOutput(*self._engine(packed))

    def destroy(self) -> None:
        """Take DeepSpeed's hooks off the model, so that its memory can be freed."""
        self._engine.destroy()
        gc.collect()
