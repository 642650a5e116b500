"""The probe: labelled tasks that no stage trains on."""

from knowrl_core.evaluation.benchmarks.model import Benchmark
from knowrl_core.evaluation.benchmarks.seed_file import seed_loader

FILES = ("probe.jsonl",)

PROBE = Benchmark(
    name="probe",
    title="Built in: tasks that no stage trains on; a run watches for collapse with it.",
    truth="infeasible: 'label', by the written rules of seeds/README.md",
    size="132 (66 infeasible)",
    licence="Apache-2.0",
    citation="KnowRL, seeds/README.md",
    url="seeds/probe.jsonl",
    files=FILES,
    builtin=True,
    load=seed_loader(FILES[0]),
)
