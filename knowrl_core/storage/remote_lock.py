"""One writer a run in an object store: a record that is taken, renewed and given back by conditional puts."""

import json
import threading
import time
import uuid
from types import TracebackType
from typing import Any, Final, Self

from knowrl_core.errors import StageError
from knowrl_core.storage.lock import (
    BEAT,
    DEAD_MACHINE,
    STALE,
    Holder,
    RunLock,
    describe,
    held,
    holder_of,
    own_record,
    parse_record,
)
from knowrl_core.storage.objects import ConflictError, ObjectStore

LOCK: Final = ".lock.json"
"""The record's name below the run; ``{}`` when nobody writes."""


class RemoteLock:
    """The lock of a run whose root is an object store.

    The holder renews the record every :data:`BEAT` seconds; one that is :data:`STALE` seconds old by the store's clock
    is taken over. On the machine (more exactly, with the working copy) of the holder the local lock, which dies with
    its process, has said all: there a record that is left is taken over at once.

    Args:
        store: The run's objects.
        local: The lock of the working copy.
        copy: Names the working copy.

    Raises:
        RunLockedError: From ``with``, when another process holds it.
    """

    def __init__(self, store: ObjectStore, local: RunLock, copy: str) -> None:
        self._store, self._local, self._copy = store, local, copy
        self._etag = ""
        self._record: dict[str, Any] = {}
        self._renewed = 0.0
        self._lost = False
        self._guard = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._local.__enter__()
        try:
            self._take()
        except BaseException:
            self._local.__exit__(None, None, None)
            raise
        self._ended.clear()
        threading.Thread(target=self._beat, name="knowrl-remote-lock", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        try:
            with self._guard:
                if not self._lost:
                    self._store.put(LOCK, b"{}", etag=self._etag)
        except (ConflictError, StageError):
            pass  # another one has it, or it gets stale by itself
        finally:
            self._local.__exit__(kind, error, trace)

    def check(self) -> None:
        """Make sure that this process still is the writer.

        Raises:
            StageError: It is not: it stood still for so long that another one took over.
        """
        if time.monotonic() - self._renewed > 2 * BEAT:
            self._renew()
        if self._lost:
            raise StageError(
                f"{self._store.url} is written by another process now, expected this one: it gave no sign of life for "
                f"{STALE:g} s",
                hint="`knowrl status` shows how that one gets on; nothing that was committed is lost.",
            )

    def _take(self) -> None:
        self._lost = False
        self._record = {**own_record(), "copy": self._copy, "token": uuid.uuid4().hex}
        found = self._store.read(LOCK)
        try:
            if found is None:
                self._etag = self._store.put(LOCK, self._body(), absent=True)
            else:
                body, etag, age = found
                holder = parse_record(body)
                if holder and holder.get("copy") != self._copy and age < STALE:
                    raise held(self._store.url, describe(holder), DEAD_MACHINE)
                self._etag = self._store.put(LOCK, self._body(), etag=etag)
        except ConflictError:
            other = self._store.read(LOCK)
            raise held(self._store.url, describe(parse_record(other[0]) if other else {}), DEAD_MACHINE) from None
        self._renewed = time.monotonic()

    def _body(self) -> bytes:
        return json.dumps({**self._record, "beat": time.time_ns()}).encode()  # another content: another etag

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                self._renew()
            except StageError:  # the network; the next stage says so
                continue

    def _renew(self) -> None:
        with self._guard:
            if self._ended.is_set() or self._lost:
                return
            try:
                self._etag = self._store.put(LOCK, self._body(), etag=self._etag)
            except ConflictError:
                # The answer to a put of our own may have been lost on its way.
                found = self._store.read(LOCK)
                if found is None or parse_record(found[0]).get("token") != self._record["token"]:
                    self._lost = True
                    return
                self._etag = found[1]
            self._renewed = time.monotonic()


def is_held(store: ObjectStore) -> bool:
    """Whether some process writes to the run now."""
    return bool(_fresh_record(store))


def read_remote_holder(store: ObjectStore) -> Holder | None:
    """Who does, as far as it is known."""
    return holder_of(_fresh_record(store))


def _fresh_record(store: ObjectStore) -> dict[str, Any]:
    found = store.read(LOCK)
    return parse_record(found[0]) if found is not None and found[2] < STALE else {}
