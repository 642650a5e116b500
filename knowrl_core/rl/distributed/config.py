"""DeepSpeed's config: what the run's config says, and the user's own settings. Loads neither PyTorch nor DeepSpeed."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

from knowrl_core.config.rl import RLConfig
from knowrl_core.errors import InputError
from knowrl_core.places import expanded
from knowrl_core.rl.distributed.settings_file import ZERO, Settings, read_settings

_BUCKET: Final = 50_000_000
"""Numbers in a buffer of communication. DeepSpeed's own 5e8 is 2 GB of float32 a buffer."""

__all__ = ["ZERO", "Settings", "check_deepspeed", "deepspeed_settings"]


def check_deepspeed(rl: RLConfig) -> None:
    """Refuse a config of the trainer ``deepspeed`` that could only fail later.

    Raises:
        InputError: DeepSpeed is not installed, or a file is missing or wrong.
    """
    if find_spec("deepspeed") is None:
        raise InputError(
            "rl.trainer is 'deepspeed', but DeepSpeed is not installed",
            hint="pip install 'knowrl[deepspeed]', or set rl.trainer to torch.",
        )
    hostfile = rl.deepspeed.hostfile
    if hostfile is not None and not expanded(hostfile).is_file():
        raise InputError(
            f"rl.deepspeed.hostfile: {hostfile} does not exist, expected a file with a line 'host slots=8' for each "
            "node",
            hint="Give the path of the hostfile, or null for one node.",
        )
    deepspeed_settings(rl)


def deepspeed_settings(rl: RLConfig) -> Settings:
    """The config that DeepSpeed is given.

    Raises:
        InputError: The user's file cannot be read, or contradicts the run's config.
    """
    ours = _ours(rl)
    if rl.deepspeed.config is None:
        return ours
    return _merged(ours, read_settings(rl.deepspeed.config, ours))


def _ours(rl: RLConfig) -> Settings:
    config = rl.deepspeed
    zero: Settings = {
        "stage": config.stage,
        # With side streams the order of sums, and so the last bits of a step, would depend on timing.
        "overlap_comm": False,
        "contiguous_gradients": True,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
    }
    if config.stage == 3:
        zero["stage3_prefetch_bucket_size"] = _BUCKET
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    if config.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": False}
    return {
        # A packed pass is DeepSpeed's micro-batch. How many of them make a step differs: the trainer says when.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": rl.max_grad_norm,
        "zero_force_ds_cpu_optimizer": False,  # else offload wants an AdamW that has to be compiled first
        ZERO: zero,
    }


def _merged(base: Settings, other: Mapping[str, Any]) -> Settings:
    merged = dict(base)
    for key, value in other.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
