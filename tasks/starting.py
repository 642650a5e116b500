"""Where a run can be gone on with, redone from, or forked."""

from knowrl_core.config import Config
from knowrl_core.errors import InputError
from knowrl_core.guards import parent_of
from knowrl_core.storage.layout import EVALUATE, RunPaths, StageKey, stage_keys
from knowrl_core.storage.retention import has_checkpoint
from knowrl_core.storage.verify import committed_manifests


def keys_of(config: Config) -> tuple[StageKey, ...]:
    """The stages of a run in order."""
    return tuple(stage_keys(config.run.iterations, warmup=config.warmup.epochs > 0))


def is_warmup(config: Config, iteration: int) -> bool:
    """Whether an iteration is the warm-up."""
    return iteration == 1 and config.warmup.epochs > 0


def _policy_needed(paths: RunPaths, key: StageKey) -> int:
    """The iteration whose checkpoint a stage starts from; 0 for the initial model."""
    return key.iteration if key.stage == EVALUATE else parent_of(paths, key.iteration)


def missing_policies(paths: RunPaths, key: StageKey) -> list[int]:
    """The iterations whose pruned checkpoints have to be made again for a stage, in the order in which that goes."""
    missing: list[int] = []
    needed = _policy_needed(paths, key)
    while needed > 0 and not has_checkpoint(paths, needed):
        missing.insert(0, needed)
        needed = parent_of(paths, needed)
    return missing


def starting_points(paths: RunPaths, keys: tuple[StageKey, ...]) -> list[StageKey]:
    """Stages that can be done at once: all before are committed, and the checkpoint is there.

    Other committed stages can be started from as well, after their checkpoints are made again.

    Args:
        paths: The run.
        keys: Its stages in order.

    Raises:
        ArtifactError: A manifest is broken.
    """
    committed = committed_manifests(paths, keys)
    return [key for key in keys[: len(committed) + 1] if not missing_policies(paths, key)]


def check_start(paths: RunPaths, keys: tuple[StageKey, ...], at: StageKey) -> None:
    """Refuse a point that a run has not come to.

    Raises:
        InputError: Naming what is missing.
        ArtifactError: A manifest is broken.
    """
    if at not in keys:
        raise InputError(f"{at}: run {paths.name!r} has no such stage, expected one from {keys[0]} to {keys[-1]}")
    committed = committed_manifests(paths, keys)
    if keys.index(at) > len(committed):
        first = keys[len(committed)]
        raise InputError(
            f"{at}: run {paths.name!r} cannot start there: {first} is not committed yet",
            hint=f"It can start at {first} or any stage before.",
        )
