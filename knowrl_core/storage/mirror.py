"""The working copy of a run whose root is an object store.

All work is done in a local folder, as with a local root; the store is what counts. A stage is in the store when its
manifest is: it is uploaded last, and only if no other is there. What the copy and the store have in common is known by
the etags that the store gave, so that nothing is transferred twice.
"""

import json
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from knowrl_core.errors import StageError
from knowrl_core.storage.files import read_small, write_atomic
from knowrl_core.storage.manifest import MANIFEST
from knowrl_core.storage.objects import ConflictError, ObjectStore, Stored
from knowrl_core.storage.remote_lock import RemoteLock

RUN_FILE: Final = "run.json"
KNOWN: Final = ".store.json"
"""Etags of what the copy and the store have in common."""
REMOVED: Final = ".removed"
"""Object that says that the rest is to go."""

_THREADS: Final = 8
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_NAME: Final = re.compile(rf"(?:run\.json|iterations/\d{{3,}}/[a-z]+(?:/{_PART})+)")
"""Names that a run has. Others are not ours, and are never turned into a path."""
_LARGE: Final = re.compile(r"iterations/\d+/update/checkpoint/")


class Mirror:
    """Keeps a local folder and a run's objects in step; the caller holds the lock.

    Args:
        store: The run's objects.
        folder: The working copy.
    """

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.lock: RemoteLock | None = None
        """Held while this process writes; asked before each write."""

    def exists(self) -> bool:
        """Whether the run is in the store."""
        return RUN_FILE in self.store.find(RUN_FILE)

    def has_remains(self) -> bool:
        """Whether there are objects of a run whose removal was cut short."""
        names = self.store.find()
        return REMOVED in names and RUN_FILE not in names

    def remove(self) -> None:
        """Remove the run; what is left if that is cut short is no run any more, and can be removed."""
        self._check_lock()
        self.store.put(REMOVED, b"")
        for below in (RUN_FILE, "iterations/", ""):
            self.drop(below)

    def pull(self, *, checkpoints: bool = True) -> None:
        """Make the copy equal to the store; what only the copy has stays if it is a commit that was not uploaded yet.

        Args:
            checkpoints: Fetch them, too. Without them the copy can be looked at, and not gone on with.
        """
        there = {name: item for name, item in self.store.find().items() if _NAME.fullmatch(name)}
        known = self._known()
        stages = {name.removesuffix(f"/{MANIFEST}") for name in there if name.endswith(f"/{MANIFEST}")}
        # A commit that was not uploaded belongs to what this copy knew; after another's work it does not.
        others = RUN_FILE not in there or known.get(RUN_FILE) != there[RUN_FILE].etag
        if RUN_FILE not in there:
            (self.folder / RUN_FILE).unlink(missing_ok=True)
        for folder in self._stages():
            manifest = f"{folder}/{MANIFEST}"
            if folder in stages:
                if known.get(manifest) != there[manifest].etag:
                    self._forget(folder, known)
            elif manifest in known or others:
                self._forget(folder, known)
        wanted = {name: item for name, item in there.items() if name == RUN_FILE or _stage_of(name) in stages}
        self._leave_only(wanted, stages)
        late = [name for name in wanted if not checkpoints and _LARGE.match(name)]
        for name in late:  # so that the copy shows which checkpoints there are
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            del wanted[name]
        self._fetch(wanted, known, stages)
        for name in known.keys() - there.keys():
            del known[name]
        self._keep(known)

    def fetch_again(self, folder: str) -> None:
        """Replace a stage of the copy that was found damaged by what the store has."""
        known = self._known()
        self._forget(folder, known)
        self._keep(known)
        self.pull()

    def push_missing(self, folders: Iterable[str]) -> list[str]:
        """Upload stages that were committed here and not in the store; returns which."""
        known = self._known()
        missing = [folder for folder in folders if f"{folder}/{MANIFEST}" not in known]
        for folder in missing:
            self.push_stage(folder)
        return missing

    def push_stage(self, folder: str) -> None:
        """Upload a committed stage: the manifest last, and only if there is none.

        Raises:
            StageError: The store cannot be reached, or another process committed that stage.
        """
        self._check_lock()
        manifest = f"{folder}/{MANIFEST}"
        names = [name for name in self._files(folder) if name != manifest]
        self._upload(names)
        self.store.delete([name for name in self.store.find(f"{folder}/") if name not in {*names, manifest}])
        self._check_lock()
        body = read_small(self.folder / manifest)
        try:
            self.store.put(manifest, body, absent=True)
        except ConflictError:
            found = self.store.read(manifest)
            if found is None or found[0] != body:
                raise StageError(
                    f"{self.store.url}/{manifest} was written by another process, expected none",
                    hint="Go on: its work is taken over.",
                ) from None
        self._note(f"{folder}/")

    def push(self, name: str) -> None:
        """Upload a file, or a folder's files, replacing what is there."""
        self._check_lock()
        self._upload(self._files(name) or [name])
        self._note(name)

    def drop(self, below: str) -> None:
        """Remove objects, a manifest first: without it the rest is no stage."""
        self._check_lock()
        names = self.store.find(below)
        manifests = [name for name in names if name.endswith(f"/{MANIFEST}")]
        self.store.delete(manifests)
        self.store.delete([name for name in names if name not in manifests])
        known = self._known()
        self._keep({name: etag for name, etag in known.items() if not _below(name, below)})

    def copy_to(self, other: "Mirror", folders: Iterable[str], run_file: str) -> None:
        """Make a new run of some stages, in the store: manifests after files, ``run.json`` last, which makes it one.

        Raises:
            StageError: The store cannot be reached, there is such a run now, or this one pruned what was to be copied.
        """
        other.store.delete(list(other.store.find()))  # what a copy that died left
        for folder in folders:
            names = sorted(self.store.find(f"{folder}/"), key=lambda name: name.endswith(f"/{MANIFEST}"))
            for name in names:
                self.store.copy(name, other.store)
        try:
            other.store.put(RUN_FILE, run_file.encode(), absent=True)
        except ConflictError:
            raise StageError(
                f"{other.store.url} exists now, expected a new name", hint="Choose another name."
            ) from None

    def _check_lock(self) -> None:
        if self.lock is not None:
            self.lock.check()

    def _files(self, below: str) -> list[str]:
        """Files of the copy below a folder."""
        found = (self.folder / below).rglob("*")
        return [path.relative_to(self.folder).as_posix() for path in found if path.is_file()]

    def _upload(self, names: list[str]) -> None:
        with ThreadPoolExecutor(_THREADS) as executor:
            list(executor.map(lambda name: self.store.upload(self.folder / name, name), names))

    def _note(self, below: str) -> None:
        """Remember what was just uploaded."""
        known = self._known()
        known.update((name, item.etag) for name, item in self.store.find(below).items())
        self._keep(known)

    def _stages(self) -> list[str]:
        """Stages that the copy has."""
        found = self.folder.glob("iterations/*/[!.]*")
        return [path.relative_to(self.folder).as_posix() for path in found if path.is_dir()]

    def _forget(self, folder: str, known: dict[str, str]) -> None:
        shutil.rmtree(self.folder / folder, ignore_errors=True)
        for name in [name for name in known if _below(name, f"{folder}/")]:
            del known[name]

    def _leave_only(self, wanted: dict[str, Stored], stages: set[str]) -> None:
        """Remove files of shared stages that the store has no longer, such as pruned checkpoints."""
        for folder in stages:
            for path in sorted((self.folder / folder).rglob("*"), reverse=True):
                if path.is_file() and path.relative_to(self.folder).as_posix() not in wanted:
                    path.unlink()
                elif path.is_dir():
                    with suppress(OSError):  # not empty
                        path.rmdir()

    def _fetch(self, wanted: dict[str, Stored], known: dict[str, str], stages: set[str]) -> None:
        """Fetch what the copy does not have; stages that are new to it appear as a whole."""
        new = {folder: self._beside(folder) for folder in stages if not (self.folder / folder / MANIFEST).exists()}
        for folder, work in new.items():
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            if (self.folder / folder).exists():  # folders of checkpoints that are fetched later
                shutil.rmtree(work)
                (self.folder / folder).rename(work)

        def fetch(name: str) -> None:
            folder = _stage_of(name)
            target = new[folder] / name.removeprefix(f"{folder}/") if folder in new else self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.tmp")
            self.store.download(name, temporary)
            temporary.replace(target)

        names = [
            name for name, item in wanted.items() if known.get(name) != item.etag or not (self.folder / name).exists()
        ]
        with ThreadPoolExecutor(_THREADS) as executor:
            list(executor.map(fetch, names))
        for folder, work in new.items():
            work.rename(self.folder / folder)
        known.update((name, wanted[name].etag) for name in names)

    def _beside(self, folder: str) -> Path:
        path = self.folder / folder
        return path.with_name(f".{path.name}.partial")

    def _known(self) -> dict[str, str]:
        try:
            content = json.loads(read_small(self.folder / KNOWN))
        except (OSError, ValueError):
            return {}
        return {str(name): str(etag) for name, etag in content.items()} if isinstance(content, dict) else {}

    def _keep(self, known: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / KNOWN, json.dumps(known, indent=0), durable=False)


def _stage_of(name: str) -> str:
    """The stage that a file of one lies in, such as ``iterations/007/update``."""
    return "/".join(name.split("/")[:3])


def _below(name: str, place: str) -> bool:
    return name.startswith(place) if not place or place.endswith("/") else name == place or name.startswith(f"{place}/")
