"""Which stages of a run stand, and what is wrong with the first that does not.

A committed stage stands when its manifest is sound, every file it lists has the hash listed, and every input it was
made from is still the output of the stage before. It is *not* compared with today's config: history is immutable, and
a changed config applies from the first stage that is not committed.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from knowrl_core.errors import ArtifactError
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.manifest import FileRef, Manifest, read_manifest
from knowrl_core.storage.retention import pruned_files
from knowrl_core.storage.seen import LARGE, SeenFiles
from knowrl_core.storage.stored import StoredFiles
from knowrl_core.storage.tables import REPAIR_HINT

EXTERNAL = "external/"

_THREADS: Final = min(8, os.cpu_count() or 1)


class Files(Protocol):
    """Where files are measured."""

    def shown(self, file: Path) -> str:
        """A file's place for people."""

    def size(self, file: Path) -> int:
        """Bytes of a file."""

    def sha256(self, file: Path) -> str:
        """The sha256 of a file."""


@dataclass(frozen=True, slots=True)
class History:
    """Result of :func:`verify_run`."""

    committed: dict[StageKey, Manifest]
    """The stages that stand, in order."""

    next_key: StageKey | None
    """The first stage to be done; None when all are committed."""

    problem: ArtifactError | None
    """Why ``next_key`` does not stand, if there is something in its place."""


def verify_run(paths: RunPaths, keys: Iterable[StageKey], seen: SeenFiles | None = None) -> History:
    """Check the stages in order up to the first that is absent or broken.

    Args:
        paths: The run.
        keys: Its stages.
        seen: What was hashed before; None hashes everything.

    Raises:
        ArtifactError: There is a symbolic link in the run.
    """
    refuse_links(paths)
    keys, seen = tuple(keys), seen or SeenFiles(None)
    committed: dict[StageKey, Manifest] = {}
    known: dict[str, str] = {}
    for key in keys:
        if not paths.stage(key).exists():
            later = later_stage(paths, keys, key)
            if later is None:
                return History(committed, key, None)
            message = f"{paths.stage(key)} is missing although {paths.stage(later)} comes after it"
            return History(committed, key, ArtifactError(message, hint=REPAIR_HINT))
        try:
            committed[key] = verify_stage(paths, key, known, seen)
        except ArtifactError as error:
            return History(committed, key, error)
    return History(committed, None, None)


def refuse_links(paths: RunPaths) -> None:
    """Make sure that nothing in a run leads out of it: KnowRL makes no symbolic links, and would write where they lead.

    The run's own directory, and what is above it, may be links.

    Raises:
        ArtifactError: Naming the first link.
    """
    for folder, folders, files in os.walk(paths.folder):
        for path in (Path(folder, name) for name in sorted(folders + files)):
            if path.is_symlink():
                raise ArtifactError(
                    f"{path}: got a symbolic link, expected files and folders alone inside a run",
                    hint="Remove it, or put what it leads to in its place; the run's directory itself may be a link.",
                )


def verify_stage(paths: RunPaths, key: StageKey, known: dict[str, str], seen: Files) -> Manifest:
    """Check one stage against the outputs known so far, and add its own to them.

    Raises:
        ArtifactError: Naming the file that is missing or altered.
    """
    manifest = read_manifest(paths.stage(key))
    problems = _problems(paths, key, manifest, known, seen)
    if problems:
        raise problems[0]
    known.update((ref.path, ref.sha256) for ref in manifest.outputs)
    return manifest


def _problems(
    paths: RunPaths, key: StageKey, manifest: Manifest, known: dict[str, str], seen: Files
) -> list[ArtifactError]:
    """All that is wrong with a stage whose manifest can be read."""
    folder = paths.stage(key)
    if (manifest.iteration, manifest.stage) != (key.iteration, key.stage):
        message = f"{folder}: its manifest is that of {manifest.iteration:03d}/{manifest.stage}"
        return [ArtifactError(message, hint=REPAIR_HINT)]
    found = [
        ArtifactError(f"{folder}: was made from another {ref.path} than the one that stands", hint=REPAIR_HINT)
        for ref in manifest.inputs
        if not ref.path.startswith(EXTERNAL) and known.get(ref.path) != ref.sha256
    ]
    try:
        pruned = pruned_files(folder)
    except ArtifactError as error:
        return [*found, error]
    return found + check_files(paths, [ref for ref in manifest.outputs if ref.path not in pruned], seen)


def check_files(paths: RunPaths, refs: Sequence[FileRef], seen: Files) -> list[ArtifactError]:
    """Compare files with their references, several at a time: one thread hashes slower than a fast disk reads."""

    def check(ref: FileRef) -> ArtifactError | None:
        try:
            check_file(paths, ref, seen)
        except ArtifactError as error:
            return error
        return None

    if max((ref.bytes or 0 for ref in refs), default=0) < LARGE:
        answers: Iterable[ArtifactError | None] = map(check, refs)
    else:
        with ThreadPoolExecutor(_THREADS) as executor:
            answers = list(executor.map(check, refs))
    return [error for error in answers if error is not None]


def check_file(paths: RunPaths, ref: FileRef, seen: Files) -> None:
    """Compare one file with its reference.

    Raises:
        ArtifactError: It is missing, truncated or altered.
    """
    file = paths.folder / ref.path
    path = seen.shown(file)
    try:
        size = seen.size(file)
        if ref.bytes is not None and size != ref.bytes:
            raise ArtifactError(f"{path}: got {size:,} bytes, expected {ref.bytes:,}", hint=REPAIR_HINT)
        found = seen.sha256(file)
    except OSError as error:
        raise ArtifactError(
            f"{path}: {error.strerror or error}, expected a committed file", hint=REPAIR_HINT
        ) from error
    if found != ref.sha256:
        raise ArtifactError(
            f"{path}: its content was altered (sha256 {found[:12]}, expected {ref.sha256[:12]})", hint=REPAIR_HINT
        )


@dataclass(slots=True)
class Inspection:
    """What :func:`inspect_run` saw."""

    stages: int = 0
    """Committed stages, damaged ones included."""
    files: int = 0
    """Files that were read."""
    size: int = 0
    """Their bytes."""
    pruned: int = 0
    """Files that are gone on purpose."""
    problems: list[ArtifactError] = field(default_factory=list)


def inspect_run(paths: RunPaths, keys: Sequence[StageKey]) -> Inspection:
    """Read every file of a run, and name everything that is wrong, not only the first.

    Raises:
        ArtifactError: There is a symbolic link in the run.
    """
    refuse_links(paths)
    found = Inspection()
    known: dict[str, str] = {}
    seen = SeenFiles(None) if paths.remote is None else StoredFiles(paths.remote)
    missing: StageKey | None = None
    for key in keys:
        folder = paths.stage(key)
        if not folder.exists():
            missing = missing or key
            continue
        if missing is not None:
            message = f"{paths.stage(missing)} is missing although {folder} comes after it"
            found.problems.append(ArtifactError(message, hint=REPAIR_HINT))
            missing = None
        found.stages += 1
        try:
            manifest = read_manifest(folder)
        except ArtifactError as error:
            found.problems.append(error)
            continue
        # What a stage without a manifest wrote is not known; those that were made from it are not to blame.
        unknown = {ref.path: ref.sha256 for ref in manifest.inputs if ref.path not in known}
        problems = _problems(paths, key, manifest, {**unknown, **known} if found.problems else known, seen)
        found.problems += problems
        known.update((ref.path, ref.sha256) for ref in manifest.outputs)
        pruned = set() if problems else pruned_files(folder)
        read = [ref for ref in manifest.outputs if ref.path not in pruned]
        found.files += len(read)
        found.size += sum(ref.bytes or 0 for ref in read)
        found.pruned += len(manifest.outputs) - len(read)
    return found


def later_stage(paths: RunPaths, keys: Sequence[StageKey], key: StageKey) -> StageKey | None:
    """The first stage after ``key`` that exists."""
    return next((other for other in keys[keys.index(key) + 1 :] if paths.stage(other).exists()), None)


def committed_manifests(paths: RunPaths, keys: Iterable[StageKey]) -> dict[StageKey, Manifest]:
    """Manifests of the committed stages in order, for reading only: files are not hashed.

    Raises:
        ArtifactError: A manifest is broken.
    """
    found: dict[StageKey, Manifest] = {}
    for key in keys:
        if not paths.stage(key).exists():
            break
        found[key] = read_manifest(paths.stage(key))
    return found
