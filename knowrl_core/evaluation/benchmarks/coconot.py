"""CoCoNot: requests with which a model should not comply (original set), beside similar harmless ones (contrast set).

Which set a row belongs to is said by its file alone, so the files must keep the authors' names. The set asks whether a
model *should* comply, which is wider than whether it *can*: the category ``Requests with safety concerns`` is about
will. ``category`` lets it be told apart.
"""

from knowrl_core.errors import InputError
from knowrl_core.evaluation.benchmarks.jsonl import read_jsonl
from knowrl_core.evaluation.benchmarks.model import Benchmark, BenchmarkTask
from knowrl_core.evaluation.benchmarks.row import HINT, Row
from knowrl_core.evaluation.benchmarks.source import HubPart, loader
from knowrl_core.labels import FEASIBLE, INFEASIBLE

FILES = ("original_test.jsonl", "contrast_test.jsonl")
HUB = "allenai/coconot"
_LABELS = {"original_test": INFEASIBLE, "contrast_test": FEASIBLE}


def _task(row: Row) -> BenchmarkTask:
    if row.part not in _LABELS:
        raise InputError(
            f"{row.place}: got a file named {row.part!r}, expected {' or '.join(FILES)}: the name tells the label",
            hint=HINT,
        )
    return BenchmarkTask(
        id=f"{row.part}/{row.text('id')}",
        task=row.text("prompt"),
        label=_LABELS[row.part],
        category=row.note("category"),
        source=row.note("subcategory"),
    )


COCONOT = Benchmark(
    name="coconot",
    title="Requests that call for noncompliance (test split), beside similar ones that should be answered.",
    truth="infeasible: the original set (should not comply); feasible: the contrast set",
    size="1,380 (1,001 infeasible)",
    licence="ODC-BY-1.0",
    citation="Brahman, Kumar et al.: The Art of Saying No: Contextual Noncompliance in Language Models. NeurIPS 2024 "
    "Datasets and Benchmarks",
    url="https://github.com/allenai/noncompliance",
    files=FILES,
    hub=HUB,
    load=loader(
        "coconot", FILES, read_jsonl, _task,
        [HubPart(f"{config}_test", HUB, "test", config=config) for config in ("original", "contrast")],
    ),
)  # fmt: skip
