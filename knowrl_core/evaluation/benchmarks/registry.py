"""All benchmarks by name."""

from typing import Final

from knowrl_core.errors import InputError
from knowrl_core.evaluation.benchmarks.coconot import COCONOT
from knowrl_core.evaluation.benchmarks.known_unknowns import KNOWN_UNKNOWNS
from knowrl_core.evaluation.benchmarks.kuq import KUQ
from knowrl_core.evaluation.benchmarks.lineofduty import LINEOFDUTY, LINEOFDUTY_AGREED
from knowrl_core.evaluation.benchmarks.model import Benchmark
from knowrl_core.evaluation.benchmarks.paired import PAIRED
from knowrl_core.evaluation.benchmarks.probe import PROBE
from knowrl_core.evaluation.benchmarks.selfaware import SELFAWARE
from knowrl_core.evaluation.benchmarks.unknownbench import FALSEQA, NEC, REFUNQ

_ALL = (
    PROBE, PAIRED, SELFAWARE, KUQ, FALSEQA, NEC, REFUNQ, LINEOFDUTY, LINEOFDUTY_AGREED, KNOWN_UNKNOWNS, COCONOT,
)  # fmt: skip

BENCHMARKS: Final[dict[str, Benchmark]] = {benchmark.name: benchmark for benchmark in _ALL}
"""Every benchmark, the built-in ones first."""


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        InputError: There is none.
    """
    if name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}", hint=f"Benchmarks: {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]
