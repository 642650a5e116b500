"""Line of Duty: tasks that large models wrote as feasible or infeasible, and then classified themselves.

Nobody outside the models labelled these tasks, so there is no truth of the usual kind. Two readings are offered:

- ``lineofduty``: all rows, labelled as they were meant (``generated_as``). That is the label the set was built by, and
  it is balanced. In 328 of 2,400 rows the same model later classified the task the other way.
- ``lineofduty_agreed``: only rows on which both labels agree (2,072). Cleaner, but easier, and no longer balanced.

Both speak about models of the size that wrote them, not about the model evaluated. A fifth of the infeasible tasks is
so for ethical reasons (category ``Ethical Integrity``), which is a matter of will rather than of ability.
"""

from knowrl_core.evaluation.benchmarks.jsonl import read_jsonl
from knowrl_core.evaluation.benchmarks.model import Benchmark, BenchmarkTask, LeftOut
from knowrl_core.evaluation.benchmarks.row import Row
from knowrl_core.evaluation.benchmarks.source import ToTask, loader
from knowrl_core.labels import FEASIBLE, INFEASIBLE

FILES = ("tasks.jsonl",)


def _task(row: Row) -> BenchmarkTask:
    return BenchmarkTask(
        id=row.text("id"),
        task=row.text("task"),
        label=str(row.choice("generated_as", FEASIBLE, INFEASIBLE)),
        category=row.note("self_knowledge_type"),
        source=row.note("model"),
    )


def _agreed(row: Row) -> BenchmarkTask | LeftOut:
    task = _task(row)
    if row.choice("classified_as", FEASIBLE, INFEASIBLE) != task.label:
        return LeftOut("its author classified it the other way")
    return task


def _benchmark(name: str, title: str, truth: str, size: str, to_task: ToTask) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        truth=truth,
        size=size,
        licence="Apache-2.0",
        citation="Kale, Nadadur: Line of Duty: Evaluating LLM Self-Knowledge via Consistency in Feasibility "
        "Boundaries. TrustNLP workshop at NAACL 2025",
        url="https://github.com/knowledge-verse-ai/LLM-Self_Knowledge_Eval",
        files=FILES,
        load=loader(name, FILES, read_jsonl, to_task),
    )


LINEOFDUTY = _benchmark(
    "lineofduty",
    "Tasks that GPT-4o, GPT-4o-mini and Mistral Large wrote as feasible or infeasible for themselves.",
    "infeasible: 'generated_as', the label under which its author wrote it",
    "2,400 (1,200 infeasible)",
    _task,
)
LINEOFDUTY_AGREED = _benchmark(
    "lineofduty_agreed",
    "Line of Duty without the tasks that their author later classified the other way.",
    "infeasible: 'generated_as' and 'classified_as' both say so",
    "2,072 (1,063 infeasible)",
    _agreed,
)
