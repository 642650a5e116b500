"""Answers that are kept on the disk shard by shard, so that a stage which dies late does not begin at nothing.

Shards are cut by number, as :class:`~knowrl_core.worker.pool.ShardedEngine` cuts them. So what is asked again is
batched as it would have been, and the answers do not depend on whether a stage was interrupted, to the last bit.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from knowrl_core.engines.base import ChooseRequest, ChooseResult, GenerateRequest, GenerateResult, GenerationEngine
from knowrl_core.storage.files import sha256_json, write_atomic

_log: Final = logging.getLogger(__name__)

_Request = TypeVar("_Request", GenerateRequest, ChooseRequest)
_Answer = TypeVar("_Answer", GenerateResult, ChooseResult)


class KeptEngine:
    """An engine that looks first for what it has answered already.

    Args:
        engine: Answers what is not there yet.
        folder: Holds the answers; a folder below it for each sequence of requests. Nothing is fsynced: a file that a
            power failure tore does not have its sha256, and is computed again.
        shard: Requests of a file.
        identity: What the answers depend on beside the requests: the policy's weights and the arithmetic.
        on_found: Told how many answers were there, and how many are asked for in all.
    """

    def __init__(
        self,
        engine: GenerationEngine,
        folder: Path,
        *,
        shard: int,
        identity: dict[str, Any],
        on_found: Callable[[int, int], None] = lambda _found, _all: None,
    ) -> None:
        self._engine, self._folder, self._shard, self._identity = engine, folder, shard, identity
        self._on_found = on_found

    @property
    def name(self) -> str:
        """Engine and arithmetic, as the lineage names it."""
        return self._engine.name

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[GenerateResult]:
        """Sample text for each request, in order."""
        return self._run("generate", requests, GenerateResult, self._engine.generate)

    def choose(self, requests: Sequence[ChooseRequest]) -> Iterator[ChooseResult]:
        """Score each request's choices, in order."""
        return self._run("choose", requests, ChooseResult, self._engine.choose)

    def _run(
        self,
        kind: str,
        requests: Sequence[_Request],
        form: type[_Answer],
        ask: Callable[[Sequence[_Request]], Iterator[_Answer]],
    ) -> Iterator[_Answer]:
        asked = [request.model_dump(mode="json") for request in requests]
        folder = self._folder / sha256_json({**self._identity, "kind": kind, "shard": self._shard, "requests": asked})
        place = 0
        while place < len(requests):
            kept = _read(folder / _name(place), form, min(self._shard, len(requests) - place))
            if kept is None:
                break
            yield from kept
            place += len(kept)
        if place:
            self._on_found(place, len(requests))
        fresh: list[_Answer] = []
        for answer in ask(requests[place:]) if place < len(requests) else ():
            fresh.append(answer)
            if len(fresh) == self._shard or place + len(fresh) == len(requests):
                _write(folder / _name(place), fresh)
                place, fresh = place + len(fresh), []
            yield answer


def _name(place: int) -> str:
    return f"{place:09d}.json"


def _read(path: Path, form: type[_Answer], count: int) -> list[_Answer] | None:
    """The answers of a file; None if it is not there or not whole."""
    try:
        content = json.loads(path.read_bytes())
        answers = content["answers"]
        if content["sha256"] != sha256_json(answers) or len(answers) != count:
            return None
        return [form.model_validate(answer) for answer in answers]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, answers: Sequence[GenerateResult | ChooseResult]) -> None:
    """Write a file as a whole. Without room it is left: keeping is a help, and the stage itself will say what ails."""
    content = [answer.model_dump(mode="json") for answer in answers]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"sha256": sha256_json(content), "answers": content}), durable=False)
    except (OSError, ValueError) as error:  # the second for numbers that JSON has no word for
        _log.warning("%s: answers cannot be kept: %s", path, error)
