"""What a model needs before it is trained: settled weights, recomputed activations without dropout."""

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


@torch.no_grad()
def settle_on_bf16(model: PreTrainedModel) -> None:
    """Round the weights that autocast uses in bf16 to bf16, in place, before the first step in bf16.

    The forward pass stays what it was, since autocast rounds them anyway. But of weights that were published in fp16,
    or dequantised from a few bits, one in eight to twelve lies exactly half-way between two bf16 numbers. The first
    step, however small, would flip all of these in its own direction: a jump thousands of times its learning rate.
    """
    # The head computes in fp32, and may share its weight with the embeddings.
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            weight = getattr(module.weight, "ds_tensor", module.weight)  # DeepSpeed's part of it, where it is split
            weight.copy_(weight.bfloat16())


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Turn on gradient checkpointing without turning on dropout."""
    # Newer transformers deprecate the second name, older ones lack the first.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            # Layers recompute only while they are "training". This sets the flag of the layer itself and not of the
            # modules in it; dropout that a layer applies by itself goes with its rate.
            module.training = True
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
