"""SelfAware: questions that have no known answer, from forums, beside answerable ones from three QA sets."""

from knowrl_core.evaluation.benchmarks.json_array import read_array
from knowrl_core.evaluation.benchmarks.model import Benchmark, BenchmarkTask
from knowrl_core.evaluation.benchmarks.row import Row
from knowrl_core.evaluation.benchmarks.source import loader
from knowrl_core.labels import FEASIBLE, INFEASIBLE

FILES = ("SelfAware.json",)


def _task(row: Row) -> BenchmarkTask:
    number = row.data.get("question_id")
    if not isinstance(number, (int, str)) or isinstance(number, bool) or number == "":
        raise row.wrong("question_id", number, "a number")
    return BenchmarkTask(
        id=str(number),
        task=row.text("question"),
        label=FEASIBLE if row.flag("answerable") else INFEASIBLE,
        source=row.note("source"),
    )


SELFAWARE = Benchmark(
    name="selfaware",
    title="Questions without a known answer, from forums, beside answerable ones from SQuAD, TriviaQA and HotpotQA.",
    truth="infeasible: 'answerable' is false (checked by three annotators)",
    size="3,369 (1,032 infeasible)",
    licence="CC-BY-SA-4.0",
    citation="Yin, Sun, Guo, Wu, Qiu, Huang: Do Large Language Models Know What They Don't Know? Findings of ACL 2023",
    url="https://github.com/yinzhangyue/SelfAware",
    files=FILES,
    load=loader("selfaware", FILES, lambda path: read_array(path, "example"), _task),
)
