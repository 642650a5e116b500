"""Where everything of a run is, and in which order its stages come."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from knowrl_core.errors import InputError
from knowrl_core.storage.mirror import Mirror

GENERATE: Final = "generate"
CLASSIFY: Final = "classify"
CONSENSUS: Final = "consensus"
UPDATE: Final = "update"
EVALUATE: Final = "evaluate"

STAGES: Final = (GENERATE, CLASSIFY, CONSENSUS, UPDATE, EVALUATE)
"""The five stages of an iteration, in order."""

WARMUP_STAGES: Final = (UPDATE, EVALUATE)
"""The stages of a warm-up."""

CONSENSUS_TABLE: Final = "consensus.parquet"
EXTRINSIC_TABLE: Final = "extrinsic.parquet"
PREDICTIONS_TABLE: Final = "predictions.parquet"
"""Tables of stages that others than the stages read, too."""

MAX_ITERATIONS: Final = 10_000
"""Most iterations of a run."""


@dataclass(frozen=True, slots=True, order=False)
class StageKey:
    """One stage of one iteration; written ``007/update``."""

    iteration: int
    stage: str

    def __str__(self) -> str:
        return f"{self.iteration:03d}/{self.stage}"

    @property
    def place(self) -> tuple[int, int]:
        """Sorts stages in the order in which they come."""
        return self.iteration, STAGES.index(self.stage)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``7/update`` or ``007/update``.

        Raises:
            InputError: It is not an iteration and a stage.
        """
        match = re.fullmatch(r"(\d{1,6})/([a-z]+)", text)
        if not match or match[2] not in STAGES:
            raise InputError(f"got {text!r}, expected ITERATION/STAGE such as 7/update (stages: {', '.join(STAGES)})")
        return cls(int(match[1]), match[2])


def stage_keys(iterations: int, *, warmup: bool) -> Iterator[StageKey]:
    """All stages of a run in order.

    Iteration 0 has two: the initial model writes the frozen task set (``generate``) and is evaluated (``evaluate``). A
    warm-up is iteration 1 and has two as well: it is trained on the seeds (``update``) and evaluated.

    Args:
        iterations: Iterations after iteration 0.
        warmup: The first of them is a warm-up.
    """
    yield StageKey(0, GENERATE)
    yield StageKey(0, EVALUATE)
    for iteration in range(1, iterations + 1):
        for stage in WARMUP_STAGES if warmup and iteration == 1 else STAGES:
            yield StageKey(iteration, stage)


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The run directory."""

    root: Path
    """The artifact root."""
    name: str
    remote: Mirror | None = field(default=None, compare=False, repr=False)
    """The run in an object store, which is kept in step; then ``root`` holds working copies."""

    @property
    def location(self) -> str:
        """The artifact root as the config names it."""
        return self.remote.store.url.removesuffix(f"/{self.name}") if self.remote else str(self.root)

    @property
    def shown(self) -> str:
        """The run directory as people should see it."""
        return self.remote.store.url if self.remote else str(self.folder)

    def publish(self, path: Path) -> None:
        """Bring a file, or a folder's files, to the object store, if there is one."""
        if self.remote is not None:
            self.remote.push(self.relative(path))

    def publish_stage(self, key: "StageKey") -> None:
        """Bring a committed stage to the object store, if there is one."""
        if self.remote is not None:
            self.remote.push_stage(self.relative(self.stage(key)))

    def withdraw(self, path: Path) -> None:
        """Remove a file, a folder or a stage from the object store, if there is one."""
        if self.remote is not None:
            self.remote.drop(self.relative(path))

    @property
    def folder(self) -> Path:
        """``runs/<run>``."""
        return self.root / self.name

    @property
    def run_file(self) -> Path:
        """``run.json``."""
        return self.folder / "run.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one writer."""
        return self.folder / ".lock"

    @property
    def seen_file(self) -> Path:
        """Which large files were hashed already."""
        return self.folder / ".seen.json"

    @property
    def logs(self) -> Path:
        """Logs of the model worker; no artifact."""
        return self.folder / "logs"

    def stage(self, key: StageKey) -> Path:
        """``iterations/007/update``."""
        return self.folder / "iterations" / f"{key.iteration:03d}" / key.stage

    def partial(self, key: StageKey) -> Path:
        """Where a stage is written before it is committed; a new attempt clears what it finds there."""
        return self.stage(key).with_name(f".{key.stage}.partial")

    def kept(self, key: StageKey) -> Path:
        """Answers of the engine that a stage has so far; gone once it is committed."""
        return self.stage(key).with_name(f".{key.stage}.kept")

    def file(self, key: StageKey, name: str) -> Path:
        """A file of a stage."""
        return self.stage(key) / name

    def relative(self, path: Path) -> str:
        """A path as manifests name it."""
        return path.relative_to(self.folder).as_posix()
