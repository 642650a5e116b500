"""UnknownBench: false premises (FalseQA), made-up concepts (NEC), and questions about made-up names (RefuNQ)."""

from knowrl_core.evaluation.benchmarks.jsonl import read_jsonl
from knowrl_core.evaluation.benchmarks.model import Benchmark, BenchmarkTask
from knowrl_core.evaluation.benchmarks.row import Row
from knowrl_core.evaluation.benchmarks.source import loader
from knowrl_core.labels import FEASIBLE, INFEASIBLE


def _task(row: Row) -> BenchmarkTask:
    task = row.text("prompt")
    return BenchmarkTask(
        id=row.derived_id(task),
        task=task,
        label=INFEASIBLE if row.choice("label", 0, 1) == 1 else FEASIBLE,
        category=row.note("category"),
        source=row.part,
    )


def _benchmark(name: str, stem: str, title: str, size: str, origin: str) -> Benchmark:
    files = (f"{stem}_answerable.json", f"{stem}_unanswerable.json")
    return Benchmark(
        name=name,
        title=title,
        truth="infeasible: 'label' is 1 (unanswerable)",
        size=size,
        licence="none stated by the authors; ask them before you redistribute it",
        citation="Liu, Wang, Yuan, Chen, Peng: Examining LLMs' Uncertainty Expression Towards Questions Outside "
        f"Parametric Knowledge. arXiv 2311.09731, 2023{origin}",
        url="https://github.com/genglinliu/UnknownBench",
        files=files,
        load=loader(name, files, read_jsonl, _task),
    )


FALSEQA = _benchmark(
    "falseqa", "FalseQA", "UnknownBench: questions with a false premise, beside their true counterparts.",
    "4,730 (2,365 infeasible)", "; FalseQA: Hu et al., ACL 2023",
)  # fmt: skip
NEC = _benchmark(
    "nec", "NEC", "UnknownBench: questions about concepts that do not exist, beside the same about real ones.",
    "4,150 (2,078 infeasible)", "",
)  # fmt: skip
REFUNQ = _benchmark(
    "refunq", "RefuNQ", "UnknownBench: Natural Questions, and the same with a made-up name put in.",
    "4,439 (2,173 infeasible)", "; Natural Questions: Kwiatkowski et al., TACL 2019",
)  # fmt: skip
