"""LoRA adapters for a server that holds the weights below them.

A policy of ``rl.lora`` is w(t) = w + s B(t) A(t), and its checkpoint has both the merged weights w(t) and the adapter
(``knowrl_core.rl.lora``). A server on w takes the adapter as it is. One that was started on a merged checkpoint
w(u) gets the difference,

    w(t) = w(u) + s B(t) A(t) - s B(u) A(u) = w(u) + s [B(t), -B(u)] [A(t); A(u)],

an adapter of twice the rank.
"""

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

import torch
from peft import LoraConfig as PeftLoraConfig
from safetensors.torch import load_file, save_file

from knowrl_core.rl.lora import ADAPTER, WEIGHTS_FILE

_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that ``--max-lora-rank`` of vLLM takes."""


class Adapter(NamedTuple):
    """A checkpoint's adapter."""

    folder: Path
    """Its folder, in peft's form."""
    tensors: dict[str, torch.Tensor]
    """``<layer>.lora_A.weight``, [rank, in], and ``<layer>.lora_B.weight``, [out, rank]."""
    config: PeftLoraConfig

    @property
    def name(self) -> str:
        """A name that another adapter does not have: servers keep what they computed under it."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(name.encode())
            digest.update(tensor.float().numpy().tobytes())
        return f"policy-{digest.hexdigest()[:16]}"


def read_adapter(checkpoint: Path) -> Adapter | None:
    """The adapter of a policy's checkpoint; None if it has none."""
    folder = checkpoint / ADAPTER
    if not (folder / WEIGHTS_FILE).exists():
        return None
    return Adapter(folder, load_file(folder / WEIGHTS_FILE), PeftLoraConfig.from_pretrained(str(folder)))


def write_difference(new: Adapter, old: Adapter, folder: Path) -> Adapter | None:
    """Write what leads from the policy of one adapter to that of another; None if they are of different layers.

    Args:
        new: Adapter of the policy that is wanted.
        old: Adapter that the weights hold already.
        folder: An empty folder.
    """
    scales = [adapter.config.lora_alpha / adapter.config.r for adapter in (new, old)]
    if new.tensors.keys() != old.tensors.keys() or scales[0] != scales[1]:
        return None
    tensors = {}
    for name, tensor in new.tensors.items():
        if name.endswith("lora_A.weight"):
            tensors[name] = torch.cat([tensor, old.tensors[name]], dim=0).contiguous()
        else:
            tensors[name] = torch.cat([tensor, -old.tensors[name]], dim=1).contiguous()
    rank = new.config.r + old.config.r
    modules = sorted(new.config.target_modules or ())
    config = PeftLoraConfig(r=rank, target_modules=modules, task_type="CAUSAL_LM", inference_mode=True)
    config.lora_alpha = scales[0] * rank  # peft computes with floats
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config.save_pretrained(str(folder))
    return Adapter(folder, tensors, config)


def largest_rank(rank: int) -> int | None:
    """What a server has to be started with for adapters of a rank and differences of two; None if vLLM has no such."""
    return next((allowed for allowed in _RANKS if rank and allowed >= 2 * rank), None)
