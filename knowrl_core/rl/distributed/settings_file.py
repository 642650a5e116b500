"""The user's file with DeepSpeed settings: read, and checked against what the run's config says."""

import json
from typing import Any, Final

from knowrl_core.config.flat import flatten
from knowrl_core.errors import InputError
from knowrl_core.places import expanded
from knowrl_core.storage.files import read_small

Settings = dict[str, Any]

ZERO: Final = "zero_optimization"

_SET_BY: Final = {
    "train_micro_batch_size_per_gpu": "rl.micro_token_budget",
    "train_batch_size": "rl.train_batch_size",
    "gradient_accumulation_steps": "rl.train_batch_size",
    "gradient_clipping": "rl.max_grad_norm",
    "optimizer": "rl.learning_rate, rl.betas and rl.weight_decay (AdamW)",
    "scheduler": "rl.schedule, rl.warmup_steps and rl.decay_steps",
    "fp16": "rl.precision",
    "bf16": "rl.precision",
    "amp": "rl.precision",
    "torch_autocast": "rl.precision",
    "data_types": "rl.precision",
    "activation_checkpointing": "rl.gradient_checkpointing",
    f"{ZERO}.stage": "rl.deepspeed.stage",
    f"{ZERO}.offload_optimizer.device": "rl.deepspeed.offload_optimizer",
    f"{ZERO}.offload_param.device": "rl.deepspeed.offload_parameters",
}
"""What the run's config decides. A file may repeat it, but not say otherwise."""

_FREE: Final = (
    "check_overflow",
    "comms_logger",
    "communication_data_type",
    "dump_state",
    "flops_profiler",
    "gradient_predivide_factor",
    "memory_breakdown",
    "prescale_gradients",
    "steps_per_print",
    "timers",
    "wall_clock_breakdown",
    ZERO,
)
"""What a file may set. DeepSpeed itself passes over names that it does not know."""


def read_settings(name: str, ours: Settings) -> Settings:
    """Settings from a file.

    Args:
        name: The file.
        ours: What the run's config says.

    Raises:
        InputError: The file cannot be read, or contradicts the run's config.
    """
    settings = _read(name)
    unknown = sorted(set(settings) - {*_FREE, *(key.partition(".")[0] for key in _SET_BY)})
    if unknown:
        raise InputError(
            f"rl.deepspeed.config: {name} sets {unknown[0]!r}, expected one of {', '.join(_FREE)}",
            hint="Remove it: it does nothing in an update, or would change what a checkpoint holds.",
        )
    known = dict(flatten(ours))
    for key, value in flatten(settings):
        owner = _SET_BY.get(key) or _SET_BY.get(key.partition(".")[0])
        if owner and (key not in known or known[key] != value):
            raise _contradiction(name, key, value, known, owner)
    for part in ("offload_optimizer", "offload_param"):
        given = settings.get(ZERO, {}).get(part)
        if given is not None and part not in ours[ZERO]:
            owner = _SET_BY[f"{ZERO}.{part}.device"]
            raise _contradiction(name, f"{ZERO}.{part}", given, known, owner)
    return settings


def _contradiction(name: str, key: str, value: Any, known: Settings, owner: str) -> InputError:
    expected = f"{json.dumps(known[key])} or nothing" if key in known else "nothing"
    return InputError(
        f"rl.deepspeed.config: {name} sets {key} to {json.dumps(value)}, expected {expected}: {owner} decides it",
        hint=f"Remove it from the file, and set {owner} to what you want.",
    )


def _read(name: str) -> Settings:
    try:
        settings = json.loads(read_small(expanded(name)))
    except (OSError, ValueError) as error:
        raise InputError(
            f"rl.deepspeed.config: cannot read {name}: {error}, expected a JSON file with DeepSpeed settings",
            hint="See configs/deepspeed for examples.",
        ) from error
    if not isinstance(settings, dict) or not isinstance(settings.get(ZERO, {}), dict):
        raise InputError(f"rl.deepspeed.config: {name} is no JSON object, or its {ZERO} is none; expected objects")
    return settings
