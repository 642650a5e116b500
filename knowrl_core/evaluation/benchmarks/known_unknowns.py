"""BIG-bench known_unknowns: few questions, half of them with "Unknown" as the right answer."""

from collections.abc import Mapping

from knowrl_core.evaluation.benchmarks.json_array import read_array
from knowrl_core.evaluation.benchmarks.model import Benchmark, BenchmarkTask
from knowrl_core.evaluation.benchmarks.row import Row
from knowrl_core.evaluation.benchmarks.source import HubPart, loader
from knowrl_core.labels import FEASIBLE, INFEASIBLE

FILES = ("task.json",)
HUB = "tasksource/bigbench"
UNKNOWN = "Unknown"


def _task(row: Row) -> BenchmarkTask:
    # The Hub's copy has other columns than the authors' file.
    converted = "multiple_choice_targets" in row.data
    task = row.text("inputs" if converted else "input")
    field, scores = _converted_scores(row) if converted else ("target_scores", row.data.get("target_scores"))
    if not isinstance(scores, Mapping) or scores.get(UNKNOWN) not in (0, 1):
        raise row.wrong(field, scores, f"a score of 0 or 1 for '{UNKNOWN}'")
    return BenchmarkTask(
        id=row.derived_id(task), task=task, label=INFEASIBLE if scores[UNKNOWN] == 1 else FEASIBLE, source=row.part
    )


def _converted_scores(row: Row) -> tuple[str, dict[str, int]]:
    names, scores = row.data["multiple_choice_targets"], row.data.get("multiple_choice_scores")
    if not isinstance(names, list) or not isinstance(scores, list) or len(names) != len(scores):
        raise row.wrong("multiple_choice_scores", scores, "as many scores as 'multiple_choice_targets'")
    return "multiple_choice_scores", dict(zip(names, scores, strict=True))


KNOWN_UNKNOWNS = Benchmark(
    name="known_unknowns",
    title="BIG-bench known_unknowns: questions that can be answered, and questions whose answer is unknown.",
    truth=f"infeasible: the answer '{UNKNOWN}' scores 1",
    size="46 (23 infeasible)",
    licence="Apache-2.0",
    citation="Srivastava et al.: Beyond the Imitation Game. TMLR 2023 (task known_unknowns)",
    url="https://github.com/google/BIG-bench/tree/main/bigbench/benchmark_tasks/known_unknowns",
    files=FILES,
    hub=HUB,
    load=loader(
        "known_unknowns", FILES, lambda path: read_array(path, "examples"), _task,
        [HubPart(split, HUB, split, config="known_unknowns") for split in ("train", "validation")],
    ),
)  # fmt: skip
