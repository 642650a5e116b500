"""Checkpoints: a plain Hugging Face folder, and in it the state of optimizer and schedule."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from knowrl_core.errors import ArtifactError, StageError
from knowrl_core.models.load import load_policy
from knowrl_core.storage.files import read_small

OPTIMIZER_FILE: Final = "optimizer/moments.safetensors"
"""In a folder of its own: some loaders, such as vLLM's, take every ``*.safetensors`` beside the config for weights."""
STATE_FILE: Final = "trainer_state.json"

_COPIED: Final = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.spm",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates",
)
"""What a checkpoint takes over from its predecessor as it stands: tokenizer, chat templates, generation config."""


class TrainerState(BaseModel):
    """``trainer_state.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    global_step: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps since the start of the run."""

    schedule_step: Annotated[int, Field(ge=0)] = 0
    """Position in the learning-rate schedule: steps that it has counted."""

    precision: Literal["fp32", "bf16"] | None = None
    """Arithmetic of the last update that trained; null before the first."""


Moments = dict[str, Tensor]
"""AdamW's moments by ``exp_avg/<parameter>`` and ``exp_avg_sq/<parameter>``, and ``step`` (int64, []): updates that
they have seen. A parameter that has seen fewer says so in ``step/<parameter>``; one that never got a gradient has 0
there, and no moments. Empty for an optimizer that has made no step."""


def load_model(folder: Path, device: str) -> PreTrainedModel:
    """Load a model's weights as float32 for training.

    Dropout is off in training, too: the first step's ratios must be 1, and the update the same each time.

    Raises:
        InputError: The folder holds no model that can be loaded.
    """
    return load_policy(folder, device=device, dtype=torch.float32)


def load_state(folder: Path | None, *, policy: Path | None = None) -> tuple[TrainerState, Moments]:
    """State of optimizer and schedule from a checkpoint; fresh ones without a folder.

    Args:
        folder: The checkpoint.
        policy: The policy's own folder. Where its state is not gone on with, as after a warm-up, it still says in which
            arithmetic its weights were trained.

    Raises:
        ArtifactError: A file is missing or cannot be read.
    """
    if folder is None:
        before = TrainerState()
        if policy is not None and (policy / STATE_FILE).exists():
            before = _read_state(policy)
        return TrainerState(precision=before.precision), {}
    try:
        state = TrainerState.model_validate_json(read_small(folder / STATE_FILE))
        return state, load_file(folder / OPTIMIZER_FILE)
    except (OSError, ValidationError, ValueError, RuntimeError) as error:
        raise _bad_state(folder, str(error)) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # not exported under one name by all versions
            raise
        raise _bad_state(folder, str(error)) from error


def _read_state(folder: Path) -> TrainerState:
    try:
        return TrainerState.model_validate_json(read_small(folder / STATE_FILE))
    except (OSError, ValidationError) as error:
        raise _bad_state(folder, str(error)) from error


def _bad_state(folder: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"cannot read the optimizer state in {folder}: {reason}; expected {OPTIMIZER_FILE} and {STATE_FILE} as an "
        "update writes them",
        hint="Redo the update that wrote this checkpoint.",
    )


def save_checkpoint(
    model: PreTrainedModel, moments: Moments, state: TrainerState, *, source: Path, output: Path
) -> None:
    """Write a complete checkpoint into a new folder. Equal contents give equal bytes. Nothing is fsynced.

    Args:
        model: The policy, float32.
        moments: State of the optimizer.
        state: State of the schedule.
        source: Folder that tokenizer, chat template and generation config are copied from.
        output: The folder to make.

    Raises:
        StageError: It could not be written (disk full, no permission).
    """
    save_model(model, source=source, output=output)
    save_state(model, moments, state, output=output)


def save_model(model: PreTrainedModel, *, source: Path, output: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write the first half of a checkpoint: what generates.

    Args:
        model: The policy, float32.
        source: Folder that tokenizer, chat template and generation config are copied from.
        output: The folder to make.
        weights: The model's state dict, if its own tensors are empty.

    Raises:
        StageError: It could not be written.
    """
    with _room_named(model, output):
        output.mkdir(parents=True)
        model.save_pretrained(output, state_dict=weights)
        for pattern in _COPIED:
            for path in sorted(source.glob(pattern)):
                if path.is_dir():
                    shutil.copytree(path, output / path.name, copy_function=shutil.copyfile)
                else:
                    shutil.copyfile(path, output / path.name)


def save_state(model: PreTrainedModel, moments: Moments, state: TrainerState, *, output: Path) -> None:
    """Write the second half of a checkpoint: what training goes on with.

    Raises:
        StageError: It could not be written.
    """
    with _room_named(model, output):
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in moments.items()}
        (output / OPTIMIZER_FILE).parent.mkdir()
        save_file(tensors, output / OPTIMIZER_FILE, metadata={"format": "pt"})
        (output / STATE_FILE).write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")


@contextmanager
def _room_named(model: PreTrainedModel, output: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        raise StageError(
            f"cannot write the checkpoint to {output}: {error}; expected a writable folder with room for about "
            f"{_gigabytes(model):.1f} GB (weights and optimizer state in float32)",
            hint="Make room or point run.root at another disk, then resume.",
        ) from error


def _gigabytes(model: PreTrainedModel) -> float:
    numbers = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())  # DeepSpeed's, where it is split
    return 3 * 4 * numbers / 1e9  # weights and two moments
