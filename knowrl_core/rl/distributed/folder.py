"""The folder in which the processes of an update and the one that started them leave each other word.

A shared file system is all that nodes have in common. Everything in it is JSON, and whole as soon as it is there.
"""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from knowrl_core.worker.messages import Failure

JOB: Final = "job.json"
RESULT: Final = "result.json"
PROGRESS: Final = "progress.jsonl"
LEASE: Final = "lease"
"""Touched all the time by the one who started the update. When that ends, the processes end, too, on every node."""
LOG: Final = "log"
ENVIRONMENT: Final = "environment"

_FAILURES: Final = "failure-*.json"


class RankFailure(BaseModel):
    """Why a process ended."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    cause: Literal["known", "unknown", "peer"]
    """``known``: an error of ours, which says what to do. ``peer``: another process had ended before, and so this one
    failed."""
    failure: Failure


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there with all its contents or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_failure(folder: Path, rank: int, failure: RankFailure) -> None:
    """Leave word of a failure."""
    write_whole(folder / f"failure-{rank}.json", failure.model_dump_json())


def has_failure(folder: Path) -> bool:
    """Whether a process has left word of one."""
    return next(folder.glob(_FAILURES), None) is not None


def first_failure(folder: Path) -> RankFailure | None:
    """The failure that the others follow from; None if no process has left word of one of its own."""
    paths = sorted(folder.glob(_FAILURES), key=lambda path: path.stat().st_mtime_ns)
    found = [RankFailure.model_validate_json(path.read_bytes()) for path in paths]
    return next((item for cause in ("known", "unknown") for item in found if item.cause == cause), None)
