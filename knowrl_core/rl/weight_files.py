"""The weights of a model folder, tensor by tensor, without loading them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from knowrl_core.errors import ArtifactError
from knowrl_core.storage.files import read_small

WHOLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

_LENGTH_BYTES: Final = 8
"""A safetensors file: length of the header (64 bit, little endian), header (JSON), the tensors' bytes."""


Floats = NDArray[np.float32]
Raw = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FloatType:
    """How a type of floating-point number is stored.

    Attributes:
        size: Bytes of a number.
        read: Bytes to numbers.
        write: Numbers to bytes, rounded to the nearest.
    """

    size: int
    read: Callable[[Raw], Floats]
    write: Callable[[Floats], bytes]


def _native(dtype: str) -> FloatType:
    return FloatType(
        np.dtype(dtype).itemsize,
        lambda raw: raw.view(dtype).astype(np.float32),
        lambda values: values.astype(dtype).tobytes(),
    )


def _from_bf16(raw: Raw) -> Floats:
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _to_bf16(values: Floats) -> bytes:
    bits = values.view(np.uint32)
    # Of two equally near the one with an even last bit. The carry must not turn a NaN into a number.
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2").tobytes()


FLOATS: Final = {
    "F64": _native("<f8"),
    "F32": _native("<f4"),
    "F16": _native("<f2"),
    "BF16": FloatType(2, _from_bf16, _to_bf16),
}
"""Types of floating-point numbers, by the names that safetensors gives them."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        name: Its name.
        dtype: Its type, as safetensors writes it.
        shape: Its shape.
        file: The file.
        start: Where its bytes begin in the file.
        end: Where they end.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    def bytes(self) -> Raw:
        """Its bytes, mapped from the file and read when they are used."""
        if self.start == self.end:
            return np.empty(0, np.uint8)
        return np.memmap(self.file, np.uint8, "r", self.start, (self.end - self.start,))


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A safetensors file.

    Attributes:
        path: The file.
        head: All its bytes before the tensors.
        tensors: Its tensors in the order of their bytes, which leaves no gaps.
    """

    path: Path
    head: bytes
    tensors: tuple[StoredTensor, ...]


def weight_files(folder: Path) -> list[WeightFile]:
    """The weight files that transformers loads from a folder: one, or the shards that the index names.

    Raises:
        ArtifactError: There are none, or one cannot be read.
    """
    hint = "Redo the update that wrote this checkpoint, or fetch the initial model again."
    try:
        if (folder / WHOLE).exists():
            names = [WHOLE]
        else:
            index = json.loads(read_small(folder / INDEX))
            names = sorted(set(index["weight_map"].values()))
        return [_read(folder / name) for name in names]
    except Exception as error:  # safetensors raises a type of its own, which not all versions export under one name
        raise ArtifactError(
            f"cannot read the weights in {folder}: {error}, expected {WHOLE} or the shards named by {INDEX}", hint=hint
        ) from error


def _read(path: Path) -> WeightFile:
    with safe_open(path, framework="numpy"):
        pass  # checks the header, the tensors' places among it
    with path.open("rb") as file:
        length = file.read(_LENGTH_BYTES)
        header = file.read(int.from_bytes(length, "little"))
    described: dict[str, dict[str, Any]] = json.loads(header)
    described.pop("__metadata__", None)
    base = _LENGTH_BYTES + len(header)
    tensors = [
        StoredTensor(name, it["dtype"], tuple(it["shape"]), path, *(base + offset for offset in it["data_offsets"]))
        for name, it in described.items()
    ]
    return WeightFile(path, length + header, tuple(sorted(tensors, key=lambda tensor: (tensor.start, tensor.end))))
