"""KUQ, Known-Unknown Questions: crowd-sourced questions without an answer beside answerable ones."""

from knowrl_core.evaluation.benchmarks.jsonl import read_jsonl
from knowrl_core.evaluation.benchmarks.model import Benchmark, BenchmarkTask
from knowrl_core.evaluation.benchmarks.row import Row
from knowrl_core.evaluation.benchmarks.source import HubPart, loader
from knowrl_core.labels import FEASIBLE, INFEASIBLE

FILES = ("knowns_unknowns.jsonl",)
HUB = "amayuelas/KUQ"


def _task(row: Row) -> BenchmarkTask:
    task = row.text("question")
    return BenchmarkTask(
        id=row.derived_id(task),
        task=task,
        label=INFEASIBLE if row.flag("unknown") else FEASIBLE,
        category=row.note("category"),
        source=row.note("source"),
    )


KUQ = Benchmark(
    name="kuq",
    title="Crowd-sourced questions whose answer nobody knows, by kind of uncertainty, beside answerable ones.",
    truth="infeasible: 'unknown' is true",
    size="about 6,900 (half of them infeasible)",
    licence="MIT",
    citation="Amayuelas, Wong, Pan, Chen, Wang: Knowledge of Knowledge: Exploring Known-Unknowns Uncertainty with "
    "Large Language Models. Findings of ACL 2024",
    url="https://github.com/amayuelas/knowledge-of-knowledge",
    files=FILES,
    hub=HUB,
    load=loader("kuq", FILES, read_jsonl, _task, [HubPart("knowns_unknowns", HUB, "train", data_file=FILES[0])]),
)
