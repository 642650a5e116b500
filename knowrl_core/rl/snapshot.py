"""An update that is under way, on the disk: an update that dies goes on after the last step that was saved.

What is put back is all that the steps to come depend on: the trained weights, AdamW's moments, the position in the
schedule, and the log-probabilities from before the first step. So on the CPU an interrupted update ends with the bytes
of an uninterrupted one.
"""

import hashlib
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from knowrl_core.rl.checkpoint import Moments, TrainerState
from knowrl_core.rl.experience import Floats
from knowrl_core.storage.files import fsync_file, fsync_folder
from knowrl_core.storage.schemas import StepRecord

FILE: Final = "update.safetensors"
AUTO_SECONDS: Final = 600.0
"""Work that is lost at most where ``rl.save_steps`` does not say how often to save."""

_log: Final = logging.getLogger(__name__)
_STEPS: Final = TypeAdapter(list[StepRecord])
_WEIGHT, _MOMENT, _LOGPROBS = "weight/", "moment/", "logprobs/"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An update after some of its steps."""

    steps: list[StepRecord]
    """The steps that were made, of those that are not left out."""
    state: TrainerState
    weights: dict[str, Tensor]
    """Trained weights by name."""
    moments: Moments
    policy: Floats
    """[N] log-probabilities before the first step; empty for a supervised update."""
    reference: Floats | None
    """[N] those of the reference, if there is one."""


class Saver:
    """Saves an update from time to time.

    Args:
        folder: Where; None saves nothing.
        key: Names all that the update depends on; a snapshot under another one is not taken up.
        every: Steps between two saves; 0 for none, None for as many as take :data:`AUTO_SECONDS`.
    """

    def __init__(self, folder: Path | None, key: str, every: int | None) -> None:
        self._folder = None if every == 0 else folder
        self._key, self._every = key, every
        self._last = time.monotonic()

    def due(self, done: int) -> bool:
        """Whether a step just made is to be saved."""
        if self._folder is None:
            return False
        if self._every is None:
            return time.monotonic() - self._last >= AUTO_SECONDS
        return done % self._every == 0

    def save(self, snapshot: Snapshot) -> None:
        """Replace the last snapshot. Without room the update goes on without one."""
        if self._folder is None:
            return
        tensors = {_WEIGHT + name: value for name, value in snapshot.weights.items()}
        tensors |= {_MOMENT + name: value for name, value in snapshot.moments.items()}
        tensors[_LOGPROBS + "policy"] = torch.from_numpy(snapshot.policy)
        if snapshot.reference is not None:
            tensors[_LOGPROBS + "reference"] = torch.from_numpy(snapshot.reference)
        about = {
            "key": self._key,
            "state": snapshot.state.model_dump_json(),
            "steps": _STEPS.dump_json(snapshot.steps).decode(),
        }
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        about["sha256"] = _digest(about, plain)
        part = self._folder / f".{FILE}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(plain, part, metadata=about)
            fsync_file(part)
            part.replace(self._folder / FILE)
            fsync_folder(self._folder)
        except (OSError, SafetensorError) as error:
            _log.warning("%s: the update under way cannot be saved: %s", self._folder, error)
            with suppress(OSError):
                part.unlink()
        self._last = time.monotonic()

    def load(self) -> Snapshot | None:
        """The last snapshot; None if there is none, or none of this update."""
        if self._folder is None:
            return None
        try:
            with safe_open(self._folder / FILE, framework="pt") as file:
                about = file.metadata() or {}
                if about.get("key") != self._key:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            if about.pop("sha256", "") != _digest(about, tensors):
                raise ValueError("its content does not have its sha256")
            found = Snapshot(
                steps=_STEPS.validate_json(about["steps"]),
                state=TrainerState.model_validate_json(about["state"]),
                weights=_part(tensors, _WEIGHT),
                moments=_part(tensors, _MOMENT),
                policy=_numbers(tensors[_LOGPROBS + "policy"]),
                reference=_numbers(tensors[_LOGPROBS + "reference"]) if _LOGPROBS + "reference" in tensors else None,
            )
        except (OSError, SafetensorError, ValidationError, KeyError, ValueError) as error:
            if not isinstance(error, FileNotFoundError):
                _log.warning("%s: no snapshot that can be read, the update begins anew: %s", self._folder, error)
            return None
        _log.info("the update goes on after %d steps", len(found.steps))
        return found


def _digest(about: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """sha256 of all that a snapshot says: a flipped bit must not go on into a checkpoint, whose hash would be right."""
    digest = hashlib.sha256()
    for name in sorted(about):
        digest.update(f"{len(name)}:{name}{len(about[name])}:{about[name]}".encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{len(name)}:{name}{value.dtype}{tuple(value.shape)}".encode())
        if value.numel():  # torch looks at no tensor without elements as bytes
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _numbers(tensor: Tensor) -> Floats:
    values: Floats = tensor.numpy().astype(np.float64)
    return values
