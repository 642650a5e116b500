"""Checkpoints of LoRA policies, as updates leave them, without an update."""

import torch

from knowrl_core.models.load import load_policy, load_tokenizer
from knowrl_core.rl import lora


def write_adapted(source, folder, config, *, scale, names, seed):
    """Give a model random adapters and write them beside the merged weights.

    Args:
        source: Folder of the model.
        folder: The checkpoint to make.
        config: Rank, scale and layers.
        scale: Standard deviation of the random numbers.
        names: Which of the adapters' matrices get them: those with this in their name.
        seed: Of the random numbers.
    """
    model = load_policy(source, device="cpu", dtype=torch.float32)
    lora.attach(model, config, None, seed=0)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if names in name:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=draws))
    tensors = lora.detach(model)
    model.save_pretrained(folder)
    load_tokenizer(source).save_pretrained(folder)
    lora.save(tensors, config, folder)
    return folder
