"""One policy update on the same rollouts: ours, packed; ours, one sequence a verdict; and TRL's GRPO trainer.

    .venv/bin/pip install --constraint requirements.lock --editable '.[dev,bench]'
    .venv/bin/python benchmarks/rl_update.py --json update.json

All verdicts (32 prompts of about 120 tokens, 8 verdicts of 4 to 16 tokens each) make one optimizer step of
SmolLM2-135M-Instruct: forward, backward, clip, AdamW. Prompts, responses, advantages and old log-probabilities are
handed to every side as numbers. Each side runs in a process of its own with as many threads, repetitions alternate
between the sides, and the table has medians. Tokens are those of all sequences, each with its prompt, without padding.
``peak`` is the process's most resident memory during a step, ``increase`` what of it the step needed on top of model
and optimizer state. bf16 (autocast) is measured where the processor multiplies it natively.

Exits with 1 if the losses of the sides differ by more than 1e-4 in fp32 (5e-3 in bf16, where TRL's LM head is less
precise than ours).
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from benchmarks.compare import Comparison, Precision, Repeated, compare, out, write_json
from benchmarks.measure import Measured, Worker
from benchmarks.rl_rollouts import RolloutSet, StepReport
from benchmarks.rl_sides import Settings, SideName, build_side, make_rollouts
from knowrl_core.config.system import ModelConfig
from knowrl_core.models.load import pick_dtype
from knowrl_core.models.resolve import resolve_model

BOUNDS: dict[Precision, float] = {"fp32": 1e-4, "bf16": 5e-3}


@dataclass(frozen=True, slots=True)
class Result(Repeated[StepReport]):
    """A side's steps."""

    @property
    def loss(self) -> float:
        """Of the first repetition."""
        return self.runs[0].report.loss


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    options = _parse(arguments)
    settings = Settings(
        model=resolve_model(ModelConfig(path=options.model)).path,
        threads=options.threads,
        micro_token_budget=options.micro_token_budget,
        plain_micro=options.plain_micro,
        trl_micro=options.trl_micro,
        kl_coef=options.kl_coef,
        trl_checkpointing=options.trl_checkpointing,
        trl_sparse_head=options.trl_sparse_head,
    )
    rows: list[Comparison] = []
    agreed = True
    for kind in options.kind:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            batch = pool.submit(make_rollouts, settings, kind, options.prompts, options.k, options.seed).result()
        _describe(batch)
        for precision in options.precision:
            results = _run(settings, batch, precision, options.repeat, options.plain_repeat)
            out.print(_table(f"{kind} rollouts, {precision}", batch, results))
            difference = max(abs(results["packed"].loss - result.loss) for result in results.values())
            bound = BOUNDS[precision]
            agrees = difference <= bound  # false for NaN, too
            agreed = agreed and agrees
            out.print(f"losses differ by {difference:.1e} at most, {'within' if agrees else 'NOT within'} {bound:g}\n")
            rows += _comparisons(f"update, {kind} rollouts, {precision}", batch, results)
    write_json(options.json, rows)
    return 0 if agreed else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    native = pick_dtype("auto", torch.device("cpu")) is torch.bfloat16
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--kind", nargs="+", choices=("template", "distinct"), default=["template"], help="rollouts (template)")
    add("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"] if native else ["fp32"],
        help="arithmetic (fp32, and bf16 where it is native)")  # fmt: skip
    add("--repeat", type=int, default=3, help="repetitions (3)")
    add("--plain-repeat", type=int, default=1, help="repetitions of our unpacked form (1); 0 leaves it out")
    add("--prompts", type=int, default=32, help="prompts (32)")
    add("--k", type=int, default=8, help="verdicts a prompt (8)")
    add("--seed", type=int, default=0, help="seed of the rollouts (0)")
    add("--micro-token-budget", type=int, default=2048, help="tokens of a packed pass (2048)")
    add("--plain-micro", type=int, default=16, help="sequences of an unpacked pass (16)")
    add("--trl-micro", type=int, default=0, help="sequences of a pass of TRL; 0 takes the quickest of several (0)")
    add("--kl-coef", type=float, default=0.0, help="weight of a KL penalty in the loss (0)")
    add("--trl-checkpointing", action="store_true", help="TRL with gradient checkpointing, its default")
    add("--trl-sparse-head", action="store_true", help="TRL's LM head on response positions only, as on a GPU")
    add("--threads", type=int, default=2, help="threads of each side (2)")
    add("--model", default="smollm2-135m-instruct", help="alias or folder (smollm2-135m-instruct)")
    add("--json", type=Path, metavar="FILE", help="write the comparisons here")
    return parser.parse_args(arguments)


def _describe(batch: RolloutSet) -> None:
    prompts = [len(rollout.prompts[0].prompt_token_ids) for rollout in batch.rollouts]
    responses = [len(response) for _, response in batch.sequences]
    out.print(
        f"{batch.kind}: {len(prompts)} prompts of {min(prompts)} to {max(prompts)} tokens (mean "
        f"{statistics.mean(prompts):.0f}), {len(responses)} verdicts of {min(responses)} to {max(responses)} (mean "
        f"{statistics.mean(responses):.1f}); {batch.tokens} tokens in all sequences"
    )


def _run(
    settings: Settings, batch: RolloutSet, precision: Precision, repeat: int, plain_repeat: int
) -> dict[SideName, Result]:
    repetitions: dict[SideName, int] = {"packed": repeat, "trl": repeat, "plain": min(plain_repeat, repeat)}
    with ExitStack() as stack:
        workers: dict[SideName, Worker] = {}
        for name, times in repetitions.items():
            if times:
                workers[name] = stack.enter_context(Worker(build_side, name, settings, batch, precision))
        for tried in workers["trl"].call("tuning"):
            out.print(
                f"TRL tried {tried.micro} sequences a pass: {tried.tokens_per_second:.0f} tokens/s, "
                f"+{tried.increase / 1e6:.0f} MB"
            )
        steps: dict[SideName, list[Measured[StepReport]]] = {name: [] for name in workers}
        for repetition in range(repeat):
            for name, worker in workers.items():
                if repetition < repetitions[name]:
                    steps[name].append(worker.measure("step"))
        return {name: Result(workers[name].label, tuple(done)) for name, done in steps.items()}


def _table(title: str, batch: RolloutSet, results: dict[SideName, Result]) -> Table:
    columns = ("runs", "seconds", "tokens/s", "peak MB", "increase MB", "loss", "grad norm", "speed-up")
    table = Table("side", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    ours = results["packed"]
    for result in results.values():
        table.add_row(
            result.label,
            str(len(result.runs)),
            f"{result.seconds:.1f}",
            f"{batch.tokens / result.seconds:.0f}",
            f"{result.peak:.0f}",
            f"{result.increase:.0f}",
            f"{result.loss:.6f}",
            f"{result.runs[0].report.grad_norm:.4f}",
            "" if result is ours else f"{result.seconds / ours.seconds:.1f}x",
        )
    return table


def _comparisons(case: str, batch: RolloutSet, results: dict[SideName, Result]) -> list[Comparison]:
    ours = results["packed"]
    rows: list[Comparison] = []
    for name, peer in results.items():
        if name == "packed":
            continue
        peer_name = peer.label.replace("TRL", f"TRL {version('trl')} GRPO")
        rates = batch.tokens / ours.seconds, batch.tokens / peer.seconds
        rows += compare(case, peer_name, ours, peer, rates)
    return rows


if __name__ == "__main__":
    sys.exit(main())
