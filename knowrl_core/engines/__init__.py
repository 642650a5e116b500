"""Generation engines: what they are asked, what they answer, and how one is made."""

from pathlib import Path
from typing import Literal

from knowrl_core.config.system import EngineConfig
from knowrl_core.engines.base import (
    ChooseRequest,
    ChooseResult,
    FinishReason,
    GenerateRequest,
    GenerateResult,
    GenerationEngine,
    Sample,
    Turn,
)

__all__ = [
    "ChooseRequest",
    "ChooseResult",
    "FinishReason",
    "GenerateRequest",
    "GenerateResult",
    "GenerationEngine",
    "Sample",
    "Turn",
    "build_engine",
]


def build_engine(
    cfg: EngineConfig,
    model_path: Path,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    replica: int = 0,
    log: Path | None = None,
    adapter_rank: int = 0,
) -> GenerationEngine:
    """Load the policy in a folder into the engine that the config names.

    Call :func:`knowrl_core.models.load.setup_torch` first, once in the process.

    Args:
        cfg: Kind of engine, arithmetic, token budget.
        model_path: Model folder.
        device: Where the model goes (``model.device`` of the config).
        replica: Number of this engine among those that share the work; GPUs are dealt out in turn.
        log: File for the output of a server that the engine starts; ``vllm.log`` in the current folder if None.
        adapter_rank: Rank of the LoRA adapters that later policies have; 0 where all their weights are trained.

    Raises:
        InputError: The folder cannot be loaded, or the device is not there.
        StageError: A server does not start, or serves another policy.
    """
    # Here, so that the contract can be imported without PyTorch.
    from knowrl_core.engines.transformers_engine import TransformersEngine  # noqa: PLC0415
    from knowrl_core.models.load import load_policy, load_tokenizer, pick_device, pick_dtype  # noqa: PLC0415

    if cfg.kind == "vllm":
        from knowrl_core.engines.vllm import open_vllm  # noqa: PLC0415

        return open_vllm(cfg, model_path, device=device, log=log or Path("vllm.log"), adapter_rank=adapter_rank)
    where = pick_device(device, replica)
    dtype = pick_dtype(cfg.dtype, where)
    model = load_policy(model_path, device=where, dtype=dtype)
    if cfg.compile:
        from knowrl_core.engines.compiled import compile_layers  # noqa: PLC0415

        compile_layers(model)
    name = f"{cfg.kind}/{'bf16' if dtype.itemsize == 2 else 'fp32'}{'/compiled' if cfg.compile else ''}"
    return TransformersEngine(model, load_tokenizer(model_path), token_budget=cfg.token_budget, name=name)
