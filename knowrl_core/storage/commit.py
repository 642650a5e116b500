"""Write a stage directory so that it is complete or absent, whatever happens."""

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from knowrl_core.errors import StageError
from knowrl_core.storage.files import fsync_file, fsync_folder, fsync_tree, sha256_file
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.manifest import MANIFEST, FileRef, Manifest, signature
from knowrl_core.storage.schemas import Record
from knowrl_core.storage.tables import count_rows, write_table
from knowrl_core.version import code_version

R = TypeVar("R", bound=Record)


class StageWriter:
    """Collects a stage's outputs beside its directory; :meth:`commit` makes them appear at once.

    The work folder has one fixed name, since a run has one writer: what a killed attempt left is cleared at the start.

    Args:
        paths: The run.
        key: The stage.
        seed: The run's seed.
        config: The stage's slice of the config.
        inputs: What the stage reads.
    """

    def __init__(
        self, paths: RunPaths, key: StageKey, *, seed: int, config: dict[str, Any], inputs: Sequence[FileRef]
    ) -> None:
        self.paths, self.key, self.seed, self.config, self.inputs = paths, key, seed, config, tuple(inputs)
        self.metrics: dict[str, float] = {}
        self.folder = paths.partial(key)
        self._started = datetime.now(UTC)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    @property
    def signature(self) -> str:
        """Sha256 over all that decides the stage's result."""
        return signature(
            stage=self.key.stage,
            seed=self.seed,
            iteration=self.key.iteration,
            config=self.config,
            inputs=self.inputs,
        )

    def write(self, name: str, record: type[R], rows: Sequence[R]) -> None:
        """Write one Parquet file."""
        write_table(self.folder / name, record, rows)

    def path(self, name: str) -> Path:
        """Where a file or folder that is not a table is to be written."""
        return self.folder / name

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def outputs(self) -> tuple[FileRef, ...]:
        """What was written, hashed, under the names that it will have; files get their final mode."""
        _share(self.folder)
        return tuple(self._reference(path) for path in sorted(self.folder.rglob("*")) if path.is_file())

    def commit(self) -> Manifest:
        """Hash, fsync, write the manifest last, rename into place.

        Raises:
            StageError: The target exists; or the object store cannot be reached: then the stage is uploaded when the
                run is gone on with.
            OSError: The disk is full or fails; nothing has appeared then.
        """
        target = self.paths.stage(self.key)
        if target.exists():
            raise StageError(f"{target} exists, expected it absent before stage {self.key} is committed")
        finished = datetime.now(UTC)
        outputs = self.outputs()
        manifest = Manifest(
            stage=self.key.stage,
            iteration=self.key.iteration,
            signature=self.signature,
            seed=self.seed,
            config=self.config,
            inputs=self.inputs,
            outputs=outputs,
            metrics=self.metrics,
            code_version=code_version(),
            started=self._started.isoformat(),
            finished=finished.isoformat(),
            seconds=round((finished - self._started).total_seconds(), 3),
        )
        fsync_tree(self.folder)
        (self.folder / MANIFEST).write_text(manifest.sealed(), encoding="utf-8")
        fsync_file(self.folder / MANIFEST)
        fsync_folder(self.folder)
        self.folder.rename(target)
        fsync_folder(target.parent)
        self.paths.publish_stage(self.key)
        return manifest

    def _reference(self, path: Path) -> FileRef:
        final = self.paths.stage(self.key) / path.relative_to(self.folder)
        rows = count_rows(path) if path.suffix == ".parquet" else None
        return FileRef(path=self.paths.relative(final), sha256=sha256_file(path), bytes=path.stat().st_size, rows=rows)


def _share(folder: Path) -> None:
    """Give files the mode that the user's umask asks for: some libraries write theirs for the owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)
