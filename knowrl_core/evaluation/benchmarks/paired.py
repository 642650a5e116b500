"""The paired set: every infeasible task has a feasible twin of nearly the same words."""

from knowrl_core.evaluation.benchmarks.model import Benchmark
from knowrl_core.evaluation.benchmarks.seed_file import seed_loader

FILES = ("paired.jsonl",)

PAIRED = Benchmark(
    name="paired",
    title="Built in: infeasible tasks, each with a feasible twin of nearly the same words, so cues do not suffice.",
    truth="infeasible: 'label', by the written rules of seeds/README.md",
    size="half of them infeasible, as many as there are pairs",
    licence="Apache-2.0",
    citation="KnowRL, seeds/README.md",
    url="seeds/paired.jsonl",
    files=FILES,
    builtin=True,
    load=seed_loader(FILES[0], paired=True),
)
