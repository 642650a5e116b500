"""Loads policies and tokenizers from a folder, and sets PyTorch up for reproducible work."""

import contextlib
import os
import platform
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from knowrl_core.errors import InputError
from knowrl_core.models.folder import check_folder
from knowrl_core.models.quiet import quiet

Dtype = Literal["auto", "fp32", "bf16"]


def load_policy(path: Path, *, device: torch.device | str, dtype: torch.dtype) -> PreTrainedModel:
    """A causal language model in evaluation mode.

    Only safetensors are read and no code from the folder is run.

    Args:
        path: Model folder.
        device: Where the weights go.
        dtype: Type of the weights.

    Raises:
        InputError: The folder holds no model that this version of transformers can load.
    """
    check_folder(path, name=str(path))
    try:
        with quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
    except Exception as error:  # safetensors and transformers raise many types for a broken or foreign folder
        raise _unloadable("model", path, error) from error
    return model.to(device).eval()  # type: ignore[no-any-return]


def load_tokenizer(path: Path) -> Any:
    """The fast tokenizer of a model folder (``PreTrainedTokenizerBase``).

    Raises:
        InputError: The folder holds no tokenizer that can be loaded without running its code.
    """
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # as above
        raise _unloadable("tokenizer", path, error) from error


def _unloadable(what: str, path: Path, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return InputError(
        f"the {what} in {path} cannot be loaded: {reason}",
        hint="Expected a complete folder made by save_pretrained(), of an architecture that transformers knows without "
        "code of the model's own. Fetch the model again if a file is damaged.",
    )


def pick_device(device: Literal["auto", "cpu", "cuda"], replica: int = 0) -> torch.device:
    """The device that the config means; ``auto`` takes CUDA if there is one.

    Args:
        device: From the config.
        replica: Number of this process among those that hold the model; GPUs are dealt out in turn.

    Raises:
        InputError: ``cuda`` was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "model.device is 'cuda', but PyTorch finds no CUDA device",
            hint="Set model.device to auto or cpu, or install a CUDA build of PyTorch and check nvidia-smi.",
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda", replica % torch.cuda.device_count()) if device == "cuda" else torch.device(device)


def pick_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """The type of weights and activations in generation; ``auto`` is bf16 where the hardware multiplies it natively."""
    if dtype == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if dtype == "bf16" else torch.float32


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware; emulated, it is slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return bool(capabilities.get("bf16", capabilities.get("arm_bf16", False)))
    return bool(capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False))


def setup_torch(threads: int, *, share: int = 1) -> int:
    """Set the number of CPU threads and ask for deterministic algorithms. Call it once, early in a process.

    Args:
        threads: CPU threads; 0 means one a physical core that this process may use. Another number may give other
            float noise, and with it other samples.
        share: Processes that compute side by side and divide these cores; without effect on a number that is given.

    Returns:
        The number of threads set.
    """
    if threads == 0:
        physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
        threads = max(1, min(physical, allowed) // share)
    torch.set_num_threads(threads)
    with contextlib.suppress(RuntimeError):  # may be set only before the first parallel work
        torch.set_num_interop_threads(1)
    # On CUDA some operations have no deterministic form, and some need CUBLAS_WORKSPACE_CONFIG: warn, do not fail.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    deterministic: Any = torch.utils.deterministic  # untyped
    deterministic.fill_uninitialized_memory = False  # costs a pass over every new tensor
    return threads
