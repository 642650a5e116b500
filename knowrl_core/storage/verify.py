"""Which stages of a run stand, and what is wrong with the first that does not.

A committed stage stands when its manifest is sound, every file it lists has the hash listed, and every input it was
made from is still the output of the stage before. It is *not* compared with today's config: history is immutable, and
a changed config applies from the first stage that is not committed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from knowrl_core.errors import ArtifactError
from knowrl_core.storage.files import sha256_file
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.manifest import FileRef, Manifest, read_manifest
from knowrl_core.storage.retention import pruned_files
from knowrl_core.storage.tables import REPAIR_HINT

EXTERNAL = "external/"


@dataclass(frozen=True, slots=True)
class History:
    """Result of :func:`verify_run`."""

    committed: dict[StageKey, Manifest]
    """The stages that stand, in order."""

    next_key: StageKey | None
    """The first stage to be done; None when all are committed."""

    problem: ArtifactError | None
    """Why ``next_key`` does not stand, if there is something in its place."""


def verify_run(paths: RunPaths, keys: Iterable[StageKey]) -> History:
    """Check the stages in order up to the first that is absent or broken."""
    keys = tuple(keys)
    committed: dict[StageKey, Manifest] = {}
    known: dict[str, str] = {}
    for key in keys:
        if not paths.stage(key).exists():
            later = _later_stage(paths, keys, key)
            if later is None:
                return History(committed, key, None)
            message = f"{paths.stage(key)} is missing although {paths.stage(later)} comes after it"
            return History(committed, key, ArtifactError(message, hint=REPAIR_HINT))
        try:
            committed[key] = verify_stage(paths, key, known)
        except ArtifactError as error:
            return History(committed, key, error)
    return History(committed, None, None)


def verify_stage(paths: RunPaths, key: StageKey, known: dict[str, str]) -> Manifest:
    """Check one stage against the outputs known so far, and add its own to them.

    Raises:
        ArtifactError: Naming the file that is missing or altered.
    """
    folder = paths.stage(key)
    manifest = read_manifest(folder)
    if (manifest.iteration, manifest.stage) != (key.iteration, key.stage):
        raise ArtifactError(
            f"{folder}: its manifest is that of {manifest.iteration:03d}/{manifest.stage}", hint=REPAIR_HINT
        )
    for ref in manifest.inputs:
        if not ref.path.startswith(EXTERNAL) and known.get(ref.path) != ref.sha256:
            raise ArtifactError(
                f"{folder}: was made from another {ref.path} than the one that stands", hint=REPAIR_HINT
            )
    pruned = pruned_files(folder)
    for ref in manifest.outputs:
        if ref.path not in pruned:
            check_file(paths, ref)
        known[ref.path] = ref.sha256
    return manifest


def check_file(paths: RunPaths, ref: FileRef) -> None:
    """Compare one file with its reference.

    Raises:
        ArtifactError: It is missing, truncated or altered.
    """
    path = paths.folder / ref.path
    try:
        size = path.stat().st_size
        if ref.bytes is not None and size != ref.bytes:
            raise ArtifactError(f"{path}: got {size:,} bytes, expected {ref.bytes:,}", hint=REPAIR_HINT)
        found = sha256_file(path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: {error.strerror or error}, expected a committed file", hint=REPAIR_HINT
        ) from error
    if found != ref.sha256:
        raise ArtifactError(
            f"{path}: its content was altered (sha256 {found[:12]}, expected {ref.sha256[:12]})", hint=REPAIR_HINT
        )


def _later_stage(paths: RunPaths, keys: Sequence[StageKey], key: StageKey) -> StageKey | None:
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
