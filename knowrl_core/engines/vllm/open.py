"""Build the engine from its config."""

import os
from pathlib import Path
from typing import Final, Literal

import torch
from transformers import AutoConfig, GenerationConfig

from knowrl_core.config.system import EngineConfig
from knowrl_core.engines.vllm.adapters import largest_rank
from knowrl_core.engines.vllm.api import VllmApi
from knowrl_core.engines.vllm.engine import VllmEngine
from knowrl_core.engines.vllm.fleet import Fleet
from knowrl_core.engines.vllm.server import VllmServer
from knowrl_core.engines.vllm.weights import ServedPolicy
from knowrl_core.models.load import load_tokenizer, pick_device, pick_dtype

KEY: Final = "KNOWRL_VLLM_API_KEY"


def open_vllm(
    config: EngineConfig, folder: Path, *, device: Literal["auto", "cpu", "cuda"], log: Path, adapter_rank: int = 0
) -> VllmEngine:
    """Start a server, or turn to those that the config names, and let them serve the policy in a folder.

    Args:
        config: ``engine`` of the config.
        folder: Checkpoint of the policy.
        device: ``model.device`` of the config.
        log: File that takes the output of the pipeline's own server.
        adapter_rank: Rank of the LoRA adapters that later policies have; 0 where all their weights are trained.

    Raises:
        StageError: No server answers, or one does not serve the policy.
    """
    vllm = config.vllm
    where = pick_device(device)
    dtype = "bf16" if pick_dtype(config.dtype, where) is torch.bfloat16 else "fp32"
    tokenizer = load_tokenizer(folder)
    cuda = where.type == "cuda"
    # GPUs load whole weights while they serve, which then cost nothing in generation; adapters would.
    rank = 0 if cuda or not vllm.verify else largest_rank(adapter_rank) or 0
    server = None if vllm.urls else VllmServer(vllm, dtype=dtype, log=log, cuda=cuda, adapter_rank=rank)
    key = os.environ.get(KEY)
    apis = [VllmApi(url, timeout=vllm.request_timeout, connections=vllm.concurrency, key=key) for url in vllm.urls]
    fleet = Fleet(
        apis,
        concurrency=vllm.concurrency,
        retries=vllm.retries,
        where=f"Its log: {log}" if server else "Look at the logs of the servers that engine.vllm.urls names.",
    )
    policy = ServedPolicy(fleet, tokenizer, dtype=dtype, verify=vllm.verify, server=server)
    if server is not None:
        fleet.revive = policy.revive
    try:
        policy.load(folder)
    except BaseException:
        policy.close()
        raise
    return VllmEngine(policy, tokenizer, _generation_config(folder), name=f"vllm/{dtype}")


def _generation_config(folder: Path) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(folder)
    except OSError:  # a folder without one: the model's config says it, as transformers has it
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))
