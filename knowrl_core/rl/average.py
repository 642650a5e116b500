"""An exponential average of the policy's weights: a teacher that moves slowly.

After iteration t, with decay d and policy w(t), and beginning with the policy as it is, which is the initial model:

    a(t) = d a(t - 1) + (1 - d) w(t)

as in Mean Teacher (Tarvainen and Valpola 2017, arXiv 1703.01780), and as the teacher of Co-rewarding (Zhang et al.
2025, arXiv 2508.00410), which rewards agreement with it so that a policy cannot raise its own reward by changing its
mind alone. It is computed as w + d (a - w) in float32, which leaves equal weights exactly as they are.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from knowrl_core.errors import StageError
from knowrl_core.rl.weight_files import FLOATS, StoredTensor, weight_files

AVERAGE: Final = "average"
"""Folder of the average within a checkpoint."""

_CHUNK: Final = 1 << 24
"""Bytes of the policy's weights at a time: what is in memory at once does not depend on the model."""

_LEFT: Final = ("*.safetensors", "trainer_state.json", "adapter_*", ".*")
"""What a checkpoint holds beside the model: its weights, which are averaged, and what only training needs."""

_HINT: Final = (
    "The average does not belong to this policy: redo the update that wrote it, or set consensus.reward.votes to "
    "initial."
)


def write_average(previous: Path, policy: Path, decay: float, output: Path) -> None:
    """Write the next average as a model folder of its own, with the policy's config, tokenizer, types and shards.

    Equal inputs give equal bytes. Nothing is fsynced.

    Args:
        previous: Folder of the average so far, or of the policy where it begins. Its shards and types may be others.
        policy: Folder of the policy's new checkpoint.
        decay: Share of the old average in the new one, from 0 to 1.
        output: The folder to make.

    Raises:
        ArtifactError: Weights cannot be read.
        StageError: The two are not the same model, or the folder cannot be written; it does not exist then.
    """
    old = {tensor.name: tensor for file in weight_files(previous) for tensor in file.tensors}
    files = weight_files(policy)
    new = [tensor for file in files for tensor in file.tensors]
    partners = {tensor.name: _partner(tensor, old, new, previous) for tensor in new}
    try:
        output.mkdir(parents=True)
        for file in files:
            with (output / file.path.name).open("wb") as out:
                out.write(file.head)
                for tensor in file.tensors:
                    for chunk in _averaged(partners[tensor.name], tensor, np.float32(decay)):
                        out.write(chunk)
        _copy_companions(policy, output)
    except OSError as error:
        shutil.rmtree(output, ignore_errors=True)
        size = sum(tensor.end - tensor.start for tensor in new) / 1e9
        raise StageError(
            f"cannot write the average to {output}: {error}; expected a new folder with room for about {size:.1f} GB",
            hint="Make room or point run.root at another disk, then resume.",
        ) from error
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise


def _partner(
    tensor: StoredTensor, old: dict[str, StoredTensor], new: Sequence[StoredTensor], previous: Path
) -> StoredTensor:
    """The tensor of the average that belongs to one of the policy.

    Tied weights may be stored under both of their names or under one. So where the average lacks a matrix, it is taken
    from under the name of another one of the policy with the same bytes.
    """
    found = old.get(tensor.name)
    if found is None and len(tensor.shape) > 1:
        twins = [twin for twin in new if twin.name in old and (twin.dtype, twin.shape) == (tensor.dtype, tensor.shape)]
        found = next((old[twin.name] for twin in twins if _same_bytes(twin, tensor)), None)
    if found is None:
        raise StageError(
            f"{previous} has no tensor {tensor.name!r}, got {len(old)} others, expected all {len(new)} of the policy",
            hint=_HINT,
        )
    if found.shape != tensor.shape:
        raise StageError(
            f"{previous}: tensor {found.name!r} has shape {list(found.shape)}, expected {list(tensor.shape)} as in the "
            "policy",
            hint=_HINT,
        )
    for one in (found, tensor):
        if (one.dtype in FLOATS) != (tensor.dtype in FLOATS):
            raise StageError(
                f"{one.file}: tensor {one.name!r} has type {one.dtype}, expected one of {', '.join(FLOATS)}", hint=_HINT
            )
    return found


def _averaged(old: StoredTensor, new: StoredTensor, decay: np.float32) -> Iterator[bytes]:
    if new.dtype not in FLOATS:  # counters and masks have no average
        for start in range(0, new.end - new.start, _CHUNK):
            yield new.bytes()[start : start + _CHUNK].tobytes()
        return
    old_type, new_type = FLOATS[old.dtype], FLOATS[new.dtype]
    old_bytes, new_bytes = old.bytes(), new.bytes()
    step = _CHUNK // new_type.size
    for start in range(0, len(new_bytes) // new_type.size, step):
        w = new_type.read(new_bytes[start * new_type.size : (start + step) * new_type.size])
        a = old_type.read(old_bytes[start * old_type.size : (start + step) * old_type.size])
        yield new_type.write(w + decay * (a - w))


def _copy_companions(policy: Path, output: Path) -> None:
    for path in sorted(policy.iterdir()):
        if path.is_file() and not any(path.match(pattern) for pattern in _LEFT):
            shutil.copyfile(path, output / path.name)
    templates = policy / "additional_chat_templates"
    if templates.is_dir():
        shutil.copytree(templates, output / templates.name, copy_function=shutil.copyfile)


def _same_bytes(one: StoredTensor, other: StoredTensor) -> bool:
    left, right = one.bytes(), other.bytes()
    return len(left) == len(right) and all(
        np.array_equal(left[start : start + _CHUNK], right[start : start + _CHUNK])
        for start in range(0, len(left), _CHUNK)
    )
