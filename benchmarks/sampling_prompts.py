"""The prompts that all sides of the sampling comparison answer: a few-shot prefix that they share, and a task each."""

from collections.abc import Sequence
from typing import Final, Literal

from knowrl_core.engines.base import ChooseRequest, GenerateRequest, Turn
from knowrl_core.resources import shipped
from knowrl_core.rng import derive_seed
from knowrl_core.seeds import load_seeds

Workload = Literal["constrained", "free", "introspection"]
LABELS: Final = (" feasible", " infeasible")
NEW_TOKENS: Final[dict[Workload, int]] = {"constrained": 8, "free": 16, "introspection": 96}
"""Most tokens of a response."""

_SHOTS: Final = (
    ("Translate the word 'river' into Spanish.", "feasible"),
    ("Tell me which coin I hold in my left hand.", "infeasible"),
    ("Sort the numbers 9, 4 and 7 from small to large.", "feasible"),
    ("Say who will win the next election in Peru.", "infeasible"),
)
_VERDICT: Final = "You are a text model without tools. Decide whether you can do a task.\n{shots}\nTask: {task}"
_INTROSPECTION: Final = (
    "You are a text model without tools. Here are tasks and whether you can do them.\n{shots}\n"
    "Write five more tasks that you can do, one a line, on this subject: {task}"
)


def prompts_of(workload: Workload, count: int) -> list[tuple[Turn, ...]]:
    """The prompts of a workload, of about 150 tokens each for SmolLM2; seed tasks in turn from both labels."""
    seeds = load_seeds(shipped("seeds", "feasible.jsonl"), shipped("seeds", "infeasible.jsonl"))
    half = len(seeds) // 2
    tasks = [seed.task for pair in zip(seeds[:half], seeds[half:], strict=False) for seed in pair]
    shots = "\n".join(f"Task: {task}\nVerdict: {label}" for task, label in _SHOTS)
    template = _INTROSPECTION if workload == "introspection" else _VERDICT
    prefill = () if workload == "introspection" else (Turn(role="assistant", content="Verdict:"),)
    return [
        (Turn(role="user", content=template.format(shots=shots, task=tasks[number % len(tasks)])), *prefill)
        for number in range(count)
    ]


def choose_requests(prompts: Sequence[tuple[Turn, ...]]) -> list[ChooseRequest]:
    """Constrained verdicts: both labels' exact probabilities, from which any number of verdicts is drawn."""
    return [ChooseRequest(turns=turns, choices=LABELS) for turns in prompts]


def generate_requests(
    workload: Workload, prompts: Sequence[tuple[Turn, ...]], k: int, seed: int
) -> list[GenerateRequest]:
    """Free text at temperature 1."""
    return [
        GenerateRequest(turns=turns, n=k, seed=derive_seed(seed, workload, number), max_new_tokens=NEW_TOKENS[workload])
        for number, turns in enumerate(prompts)
    ]
