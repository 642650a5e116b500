"""Checkpoints are large: prune all but those that the config keeps, and record what was pruned."""

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from knowrl_core.config.system import RetentionConfig
from knowrl_core.errors import ArtifactError
from knowrl_core.storage.files import read_small, write_atomic
from knowrl_core.storage.layout import UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.records import first_problem
from knowrl_core.storage.tables import REPAIR_HINT

PRUNED: Final = "pruned.json"
CHECKPOINT: Final = "checkpoint"


class Pruned(BaseModel):
    """``pruned.json`` beside a manifest: files that were removed on purpose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: tuple[str, ...]


def pruned_files(folder: Path) -> frozenset[str]:
    """Files of a stage directory (relative to the run) that were pruned.

    Raises:
        ArtifactError: The record is broken.
    """
    path = folder / PRUNED
    if not path.exists():
        return frozenset()
    try:
        files = frozenset(Pruned.model_validate_json(read_small(path)).files)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}", hint=REPAIR_HINT) from error
    except ValidationError as error:
        raise ArtifactError(
            f"{path}: not a record of what was pruned: {first_problem(error)}", hint=REPAIR_HINT
        ) from None
    strange = sorted(name for name in files if f"/{CHECKPOINT}/" not in name)
    if strange:
        raise ArtifactError(
            f"{path}: got {strange[0]!r}, expected files of a checkpoint: nothing else is ever pruned", hint=REPAIR_HINT
        )
    return files


def has_checkpoint(paths: RunPaths, iteration: int) -> bool:
    """Whether an iteration's checkpoint is there as a whole: a process may have died while it pruned it."""
    folder = paths.stage(StageKey(iteration, UPDATE))
    return (folder / CHECKPOINT).exists() and not (folder / PRUNED).exists()


def checkpoints_to_keep(
    config: RetentionConfig, scores: Mapping[int, float | None], *, needed: Collection[int] = ()
) -> set[int]:
    """Which iterations keep their checkpoint.

    Args:
        config: The rules.
        scores: Balanced accuracy on the probe for each iteration that has a checkpoint; None if not evaluated yet.
        needed: Iterations that the run may go on from; they are kept whatever the rules say.
    """
    iterations = sorted(scores)
    keep = {*iterations[-config.keep_last :], *(scores.keys() & needed)}
    known = {iteration: score for iteration, score in scores.items() if score is not None}
    if config.keep_best and known:
        # The earliest of equals: later ones have drifted further from the reference for nothing.
        keep.add(max(known, key=lambda iteration: (known[iteration], -iteration)))
    if config.keep_every:
        keep.update(iteration for iteration in iterations if iteration % config.keep_every == 0)
    return keep


def prune(paths: RunPaths, manifests: Mapping[int, Manifest], keep: set[int]) -> list[int]:
    """Remove the checkpoints of all other iterations; returns those pruned now.

    The record is written before the files go, so that a crash between the two never looks like damage.

    Args:
        paths: The run.
        manifests: Manifest of stage ``update`` for each iteration.
        keep: Iterations whose checkpoint stays.
    """
    done = []
    for iteration, manifest in manifests.items():
        folder = paths.stage(StageKey(iteration, UPDATE))
        checkpoint = folder / CHECKPOINT
        if iteration in keep or not checkpoint.exists():
            continue
        prefix = paths.relative(checkpoint) + "/"
        files = [ref.path for ref in manifest.outputs if ref.path.startswith(prefix)]
        write_atomic(folder / PRUNED, json.dumps({"files": files}, indent=2) + "\n")
        paths.publish(folder / PRUNED)
        paths.withdraw(checkpoint)
        shutil.rmtree(checkpoint)
        done.append(iteration)
    return done
