"""What a benchmark is, and what its loader gives."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class BenchmarkTask(NamedTuple):
    """A task with the label that predictions are compared with."""

    id: str
    """Stable name within the set: the file's own, else file, row and a hash of the text."""
    task: str
    """Its text."""
    label: str
    """``feasible`` or ``infeasible``."""
    category: str = ""
    """Kind of limit or topic, in the set's own words; empty where it has none."""
    source: str = ""
    """Where the set's authors took it from, or which file of the set it stands in."""
    pair: str = ""
    """Shared by an infeasible task and its feasible twin; empty for a task of its own."""


class LeftOut(NamedTuple):
    """A row that is no task of the benchmark; it is counted under its reason."""

    reason: str


LeftOuts = Counter[str]
"""Rows that were left out, by reason."""

Load = Callable[[Path | None, LeftOuts], Iterator[BenchmarkTask]]
"""Reads a set's tasks in the order of its files, one at a time."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One labelled set.

    Attributes:
        name: Its name in ``--benchmark`` and ``evaluation.benchmarks``.
        title: What it is, in a sentence.
        truth: What makes a task infeasible in it.
        size: Its tasks as its authors count them.
        licence: SPDX id, or what the authors say.
        citation: Authors, title, place and year.
        url: Where it comes from.
        files: Names of its files as its authors publish them.
        hub: Its Hugging Face Hub id; empty without one.
        builtin: Ships with KnowRL, so it needs no path.
        load: Its loader.
    """

    name: str
    title: str
    truth: str
    size: str
    licence: str
    citation: str
    url: str
    load: Load
    files: tuple[str, ...] = ()
    hub: str = ""
    builtin: bool = False
