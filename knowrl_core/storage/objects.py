"""A run's place in an object store: list, get, put, conditional put, delete, copy.

fsspec's s3fs does the transfers; conditions (``If-Match``, ``If-None-Match``) are those of S3 itself, which AWS, MinIO
and others understand.
"""

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, cast

from fsspec.asyn import sync

from knowrl_core.errors import InputError, StageError

URL: Final = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*?))?/*")
_GONE: Final = {"404", "NoSuchKey", "NotFound"}
_CONFLICT: Final = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_HINT: Final = "Check the address (AWS_ENDPOINT_URL), the credentials (AWS_…) and the network, then go on."


class ConflictError(Exception):
    """The condition of a put did not hold: somebody else was faster."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a listing shows it."""

    etag: str
    """Changes whenever the object does."""
    size: int
    """Bytes."""


class ObjectStore:
    """All objects below one prefix of a bucket.

    Args:
        url: ``s3://bucket/prefix``.

    Raises:
        InputError: It is no such URL, or s3fs is not installed.
    """

    def __init__(self, url: str) -> None:
        match = URL.fullmatch(url)
        if match is None or any(part in {".", ".."} for part in (match["prefix"] or "").split("/")):
            raise InputError(
                f"run.root: got {url!r}, expected a folder or s3://BUCKET/PREFIX",
                hint="Use a local or mounted folder, or a bucket of a store that speaks S3 (AWS_ENDPOINT_URL).",
            )
        self.bucket, self.prefix = match["bucket"], (match["prefix"] or "").strip("/")
        try:
            from s3fs import S3FileSystem  # noqa: PLC0415 - only where the root is there
        except ImportError:
            raise InputError(
                f"run.root: {url!r} needs s3fs, which is not installed", hint="pip install 'knowrl[s3]'"
            ) from None
        self._fs = S3FileSystem(
            use_listings_cache=False,
            config_kwargs={"retries": {"max_attempts": 5, "mode": "standard"}, "connect_timeout": 10},
        )

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"s3://{self._key('')}".rstrip("/")

    def below(self, name: str) -> "ObjectStore":
        """The objects below a further part of the prefix."""
        return ObjectStore(f"{self.url}/{name}")

    def check(self) -> None:
        """Make sure that objects can be written and removed, leaving no trace.

        Raises:
            InputError: They cannot.
        """
        try:
            self.put(".knowrl-probe", b"")
            self.delete([".knowrl-probe"])
        except StageError as error:
            raise InputError(f"run.root: {self.url} cannot be written to: {error.message}", hint=error.hint) from error

    def find(self, below: str = "") -> dict[str, Stored]:
        """Objects by their name relative to the prefix."""
        place = self._key(below)
        with self._explained(below):
            try:
                found = cast("dict[str, dict[str, Any]]", self._fs.find(place, detail=True))
            except FileNotFoundError:
                # A prefix without objects looks like this; so does a bucket that is not there, which check() finds.
                return {}
        own = self._key("").rstrip("/")
        return {
            posixpath.relpath(name, own): Stored(str(item["ETag"]), int(item["size"]))
            for name, item in found.items()
            if item["type"] == "file"
        }

    def folders(self) -> list[str]:
        """Names directly below the prefix that have objects below them."""
        with self._explained(""):
            try:
                found = cast("list[dict[str, Any]]", self._fs.ls(self._key(""), detail=True))
            except FileNotFoundError:
                return []
        return sorted(posixpath.basename(item["name"]) for item in found if item["type"] == "directory")

    def read(self, name: str, *, most: int | None = None) -> tuple[bytes, str, float] | None:
        """Content, etag, and age in seconds by the store's own clock; None if there is no such object.

        Args:
            name: Its name.
            most: Bytes of the content that are fetched; None fetches all.
        """
        part = {} if most is None else {"Range": f"bytes=0-{most - 1}"}

        async def get() -> tuple[dict[str, Any], bytes]:  # in one answer: the etag is that of this content
            answer = await self._fs._call_s3("get_object", Bucket=self.bucket, Key=self._object(name), **part)
            return answer, await answer["Body"].read()

        with self._explained(name):
            try:
                answer, body = sync(self._fs.loop, get)
            except FileNotFoundError:
                return None
        sent = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        changed: datetime = answer["LastModified"]
        return body, str(answer["ETag"]), (sent - changed).total_seconds()

    def put(self, name: str, body: bytes, *, absent: bool = False, etag: str | None = None) -> str:
        """Write a small object; returns its etag.

        Args:
            name: Its name.
            body: Its content.
            absent: Only if there is none.
            etag: Only if it is still this one.

        Raises:
            ConflictError: The condition does not hold.
            StageError: The store does not take it.
        """
        condition = {"IfNoneMatch": "*"} if absent else {"IfMatch": etag} if etag else {}
        with self._explained(name):
            answer = self._fs.call_s3("put_object", Bucket=self.bucket, Key=self._object(name), Body=body, **condition)
            return str(answer["ETag"])

    def upload(self, path: Path, name: str) -> None:
        """Write a file, in parts if it is large."""
        with self._explained(name):
            self._fs.put_file(str(path), self._key(name))

    def download(self, name: str, path: Path) -> None:
        """Fetch an object into a file."""
        with self._explained(name):
            self._fs.get_file(self._key(name), str(path))

    def blocks(self, name: str) -> Iterator[bytes]:
        """Content in blocks, without a local copy."""
        with (
            self._explained(name),
            self._fs.open(self._key(name), "rb", block_size=1 << 24, cache_type="readahead") as f,
        ):
            while block := f.read(1 << 24):
                yield block

    def copy(self, name: str, target: "ObjectStore") -> None:
        """Copy an object below another prefix; the store does it, no byte comes here."""
        with self._explained(name):
            self._fs.cp_file(self._key(name), target._key(name))

    def delete(self, names: list[str]) -> None:
        """Remove objects."""
        if names:
            with self._explained(names[0]):
                self._fs.rm([self._key(name) for name in names])

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.bucket, self.prefix, name) if part)

    def _object(self, name: str) -> str:
        return self._key(name).removeprefix(f"{self.bucket}/")

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Errors of the store in our words; a missing object stays a ``FileNotFoundError``."""
        from aiohttp import ClientError as HttpError  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            yield
        except (OSError, BotoCoreError, ClientError, HttpError) as error:
            code = _code(error)
            if code in _CONFLICT:
                raise ConflictError(name) from error
            if code in _GONE or (isinstance(error, FileNotFoundError) and code != "NoSuchBucket"):
                raise StageError(f"{self.url}/{name}: no such object", hint=_HINT) from error
            raise StageError(f"{self.url}/{name}: {error or type(error).__name__}", hint=_HINT) from error


def _code(error: BaseException) -> str:
    """What S3 calls an error; s3fs hangs the answer on the cause."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
