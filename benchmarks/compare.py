"""What comparisons have in common: a side's repetitions, their medians, and the lines of the JSON file."""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from rich.console import Console

from benchmarks.measure import Measured

R = TypeVar("R")
Precision = Literal["fp32", "bf16"]
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True)
class Repeated(Generic[R]):
    """A side's repetitions of one piece of work."""

    label: str
    runs: tuple[Measured[R], ...]

    @property
    def seconds(self) -> float:
        """Median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def peak(self) -> float:
        """Megabytes; the largest."""
        return max(run.peak for run in self.runs) / 1e6

    @property
    def increase(self) -> float:
        """Megabytes; the largest."""
        return max(run.peak - run.before for run in self.runs) / 1e6


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the JSON file."""

    case: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    unit: str


def compare(
    case: str,
    peer_name: str,
    ours: Repeated[R],
    peer: Repeated[R],
    rates: tuple[float, float],
    *,
    unit: str = "tokens/s",
) -> list[Comparison]:
    """The lines for one peer.

    Args:
        case: What was done.
        peer_name: The peer, with its version.
        ours: Our repetitions.
        peer: The peer's.
        rates: How much a second, ours and the peer's.
        unit: Of the rates.
    """
    pairs: Mapping[str, tuple[float, float]] = {
        unit: rates,
        "s": (ours.seconds, peer.seconds),
        "MB peak": (ours.peak, peer.peak),
        "MB increase": (ours.increase, peer.increase),
    }
    return [
        Comparison(case, round(mine, 3), round(theirs, 3), peer_name, round(mine / theirs, 4), name)
        for name, (mine, theirs) in pairs.items()
    ]


def write_json(path: Path | None, rows: Sequence[Comparison]) -> None:
    """Write the lines, if a file is asked for."""
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
