"""How fast near-duplicates of generated tasks are found, and whether the decisions are those of the exact rule.

    .venv/bin/python benchmarks/dedupe.py --json dedupe.json
    .venv/bin/python benchmarks/dedupe.py --sizes 1000,10000      # some seconds

Synthetic tasks (``dedupe_tasks.py``) arrive, as from a model that loves templates. Each is searched for, and stored
unless it is a near-duplicate (ROUGE-L F1 of at least 0.7 to a stored one). The peer is the rule itself: every task
against every stored one with rapidfuzz, in blocks (``process.cdist``), the fastest way to compare all pairs that we
know of. Both get the same tasks and one thread, and every measurement has a process of its own. Making the tasks is not
timed.

First, the decisions on 5,000 tasks are compared with the peer's. Ends with 1 if a task is dropped that the rule keeps,
or more than one percent of the near-duplicates are missed.
"""

import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import psutil
import typer
from dedupe_tasks import tasks
from rapidfuzz import process
from rapidfuzz.distance import LCSseq
from rich.console import Console
from rich.table import Column, Table

from knowrl_core.introspection import pairs, similarity
from knowrl_core.introspection.similarity import Match, WordIndex
from knowrl_core.seeds.duplicates import words

BAR = 0.7
CHECKED = 5_000
LEAST_RECALL = 0.99
BLOCK = 256
AHEAD = 1_000  # texts that are known before they are decided on; a run knows those of all its calls
PEER = "all pairs, rapidfuzz cdist"
STORED, ASKED = 1_400, 60  # as in a run: pool and seeds, and the candidates of an iteration

Result = TypeVar("Result")
Decisions = Iterator[Match | None]


class Measured(NamedTuple):
    """Tasks stored and dropped, seconds, and the bytes at the most and at the end beyond those at the start."""

    stored: int
    dropped: int
    seconds: float
    peak: int
    kept: int

    @property
    def rate(self) -> float:
        """Tasks decided a second."""
        return (self.stored + self.dropped) / self.seconds


def ours(texts: Iterator[str], index: WordIndex | None = None) -> Decisions:
    """Decide with the index."""
    index = WordIndex() if index is None else index
    number = 0
    while coming := list(islice(texts, AHEAD)):
        index.expect(coming, BAR)
        for text in coming:
            match = index.nearest(text, BAR)
            if match is None:
                index.add(str(number), text)
            number += 1
            yield match


def all_pairs(texts: Iterator[str]) -> Decisions:
    """Decide by comparing with every stored task; those that arrive are compared in blocks to use SIMD."""
    codes: dict[str, str] = {}
    stored: list[tuple[str, str]] = []  # id, words as one character each
    block: list[tuple[str, str]] = []
    for number, text in enumerate(texts):
        block.append((str(number), _coded(text, codes)))
        if len(block) == BLOCK:
            yield from _decide(block, stored)
            block = []
    yield from _decide(block, stored)


def _coded(text: str, codes: dict[str, str]) -> str:
    return "".join(codes.setdefault(word, chr(0xE000 + len(codes))) for word in words(text))


def _decide(block: list[tuple[str, str]], stored: list[tuple[str, str]]) -> Decisions:
    known = len(stored)
    both = [coded for _, coded in stored + block]
    sizes = np.array([len(coded) for coded in both])
    common = process.cdist(both[known:], both, scorer=LCSseq.similarity, dtype=np.int32)
    scores = 2 * common / np.maximum(sizes[known:, None] + sizes[None], 1)
    # Tasks of the block count from the moment that they are stored.
    counting = np.arange(len(both)) < known
    for row in range(len(block)):
        scored = np.where(counting, scores[row], 0.0)
        best = int(scored.argmax()) if known or row else 0
        if scored[best] >= BAR:
            yield Match((stored[best] if best < known else block[best - known])[0], float(scored[best]))
        else:
            counting[known + row] = True
            yield None
    stored += [item for item, counts in zip(block, counting[known:], strict=True) if counts]


def run(decide: Callable[[Iterator[str]], Decisions], size: int, seed: int) -> Measured:
    """Decide on tasks. Making them is not timed."""
    before = psutil.Process().memory_info().rss
    spent = [0.0]

    def untimed() -> Iterator[str]:
        made = tasks(seed)
        while True:
            began = time.perf_counter()
            text = next(made)
            spent[0] += time.perf_counter() - began
            yield text

    began = time.perf_counter()
    decisions = decide(untimed())
    stored = sum(next(decisions) is None for _ in range(size))
    seconds = time.perf_counter() - began - spent[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Measured(stored, size - stored, seconds, peak - before, psutil.Process().memory_info().rss - before)


def small(seed: int) -> tuple[float, float]:
    """Median seconds, ours and the peer's, to store what a run has and to decide on the candidates of an iteration."""
    made = tasks(seed)
    known, asked = ([next(made) for _ in range(number)] for number in (STORED, ASKED))

    def with_index() -> None:
        index = WordIndex()
        for number, text in enumerate(known):
            index.add(str(number), text)
        list(ours(iter(asked), index))

    def with_all_pairs() -> None:
        codes: dict[str, str] = {}
        stored, block = ([(str(n), _coded(text, codes)) for n, text in enumerate(texts)] for texts in (known, asked))
        list(_decide(block, stored))

    def seconds(once: Callable[[], None]) -> float:
        began = time.perf_counter()
        once()
        return time.perf_counter() - began

    mine, peer = (statistics.median(seconds(once) for _ in range(9)) for once in (with_index, with_all_pairs))
    return mine, peer


def check(seed: int) -> tuple[float, int, int]:
    """Compare decisions: the share of near-duplicates found, false drops, and drops that name another task."""
    # So few tasks would mostly be looked at one by one. File them early and always look up, as among a million.
    similarity.RECENT, pairs.LOOKUP_COST = 128, 0  # type: ignore[misc]
    made = tasks(seed)
    texts = [next(made) for _ in range(CHECKED)]
    decided = list(zip(ours(iter(texts)), all_pairs(iter(texts)), strict=True))
    true = sum(exact is not None for _, exact in decided)
    found = sum(mine is not None and exact is not None for mine, exact in decided)
    false = sum(mine is not None and exact is None for mine, exact in decided)
    other = sum(mine != exact for mine, exact in decided if mine and exact)
    return found / true, false, other


def alone(function: Callable[..., Result], *arguments: object) -> Result:
    """Call in a fresh process, so that memory and caches are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def row(case: str, mine: float, peer: float | None, unit: str, *, more_is_better: bool) -> dict[str, Any]:
    """A result; the ratio says how many times better than the peer."""
    ratio = None if not peer or not mine else mine / peer if more_is_better else peer / mine
    return {
        "case": case, "ours": mine, "peer": peer, "peer_name": PEER if peer is not None else None,
        "ratio": ratio, "unit": unit,
    }  # fmt: skip


def rows_of(size: int, mine: Measured, peer: Measured | None) -> list[dict[str, Any]]:
    """The results at one size."""
    title = f"{size:,} tasks, {mine.stored:,} stored"
    each = mine.kept / mine.stored, peer and peer.kept / peer.stored
    return [
        row(f"{title}: rate", mine.rate, peer and peer.rate, "1/s", more_is_better=True),
        row(f"{title}: time", mine.seconds, peer and peer.seconds, "s", more_is_better=False),
        row(f"{title}: peak memory", mine.peak / 1e6, peer and peer.peak / 1e6, "MB", more_is_better=False),
        row(f"{title}: memory of a stored one", *each, "bytes", more_is_better=False),
    ]


def growth(first: Measured, second: Measured) -> float:
    """Exponent of the time between two sizes: 1 is linear, 2 quadratic."""
    more = (second.stored + second.dropped) / (first.stored + first.dropped)
    return math.log(second.seconds / first.seconds) / math.log(more)


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results there.")] = None,
    sizes: Annotated[str, typer.Option(help="Tasks, ascending.")] = "1000,10000,100000,1000000",
    peer_up_to: Annotated[int, typer.Option(help="Largest size at which all pairs are compared, too.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the synthetic tasks.")] = 0,
) -> None:
    """Measure the index and the peer side by side."""
    if not all(size.isdecimal() and int(size) for size in sizes.split(",")):
        raise typer.BadParameter(f"--sizes is {sizes!r}, expected numbers above 0 with commas, such as 1000,10000")
    console = Console()
    recall, false, other = alone(check, seed)
    results = [
        row(f"{CHECKED:,} tasks: recall", recall, 1.0, "share", more_is_better=True),
        row(f"{CHECKED:,} tasks: false drops", false, 0, "tasks", more_is_better=False),
        row(f"{CHECKED:,} tasks: another task named", other, 0, "tasks", more_is_better=False),
        row(f"{ASKED} candidates, {STORED:,} stored", *alone(small, seed), "s", more_is_better=False),
    ]  # fmt: skip
    console.print(f"recall {recall:.4f}, {false} false drops, {other} named another task")
    measured = []
    for size in map(int, sizes.split(",")):
        mine = alone(run, ours, size, seed)
        peer = alone(run, all_pairs, size, seed) if size <= peer_up_to else None
        measured.append((size, mine, peer))
        results += rows_of(size, mine, peer)
        console.print(f"{size:,} tasks in {mine.seconds:.1f} s")
    for (size, mine, peer), (to, more, peers) in pairwise(measured):
        exponent = growth(peer, peers) if peer and peers else None
        results.append(
            row(f"growth {size:,} to {to:,}", growth(mine, more), exponent, "exponent", more_is_better=False)
        )
    table = Table(
        Column("case", no_wrap=True), *(Column(name, justify="right") for name in ("ours", "peer", "ratio", "unit"))
    )
    for result in results:
        values = (result[name] for name in ("ours", "peer", "ratio"))
        table.add_row(
            str(result["case"]),
            *("" if v is None else f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in values),
            str(result["unit"]),
        )
    console.print(table)
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if recall < LEAST_RECALL or false:
        console.print(f"[red]recall {recall:.4f}, expected {LEAST_RECALL} at least; {false} false drops, expected none")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
