"""Sampling k responses a prompt: our transformers engine, plain ``model.generate``, and vLLM through our engine.

    .venv/bin/pip install --constraint requirements.lock --editable '.[dev]'
    .venv/bin/python benchmarks/sampling.py --json sampling.json

48 prompts of about 150 tokens that begin with the same few-shot examples, k = 8, SmolLM2-135M-Instruct: verdicts
(constrained to the labels; and free, 16 tokens) and introspection (96 tokens). Each side runs in a process of its own
with as many threads, and repetitions alternate between the sides; the table has medians. Tokens are those of the
responses. ``peak`` is the process's most resident memory during the work, ``increase`` what of it the work needed on
top of the loaded model. vLLM is measured when its environment is there (``make vllm``); its memory counts the server's
processes, which reserve their cache when they start.

Speed-up is the ratio of tokens/s, since free responses differ in length from side to side; for constrained verdicts,
where all sides give as many, of the time. Exits with 1 when a side gives another number of responses.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from benchmarks.compare import Comparison, Repeated, compare, out, write_json
from benchmarks.measure import Measured, Worker
from benchmarks.sampling_prompts import NEW_TOKENS, Workload, prompts_of
from benchmarks.sampling_sides import Answers, Settings, build_ours, build_plain, build_vllm
from knowrl_core.config.system import ModelConfig
from knowrl_core.engines.chat import render
from knowrl_core.models.load import load_tokenizer, pick_dtype
from knowrl_core.models.resolve import resolve_model

BUILD = {"ours": build_ours, "generate": build_plain, "vllm": build_vllm}


class Result(Repeated[Answers]):
    """A side's repetitions of one workload."""

    @property
    def rate(self) -> float:
        """Tokens a second, median."""
        return statistics.median(run.report.tokens / run.seconds for run in self.runs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    options = _parse(arguments)
    if "vllm" in options.side and not options.vllm_python.exists():
        out.print(f"vLLM is left out: {options.vllm_python} is not there (make vllm)")
        options.side.remove("vllm")
    rows: list[Comparison] = []
    whole = True
    for precision in options.precision:
        settings = Settings(
            model=resolve_model(ModelConfig(path=options.model)).path,
            precision=precision,
            threads=options.threads,
            prompts=options.prompts,
            k=options.k,
            seed=options.seed,
            token_budget=options.token_budget,
            plain_prompts=options.plain_prompts,
            vllm_python=options.vllm_python,
        )
        results = _run(settings, options.side, options.workload, options.repeat)
        for workload, sides in results.items():
            out.print(_table(_title(settings, workload), workload, sides))
            rows += _comparisons(f"{workload}, {precision}", workload, sides)
            expected = settings.prompts * settings.k
            whole = whole and all(run.report.responses == expected for side in sides.values() for run in side.runs)
    write_json(options.json, rows)
    return 0 if whole else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    native = pick_dtype("auto", torch.device("cpu")) is torch.bfloat16
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--side", nargs="+", choices=tuple(BUILD), default=list(BUILD), help="sides (all)")
    add("--workload", nargs="+", choices=tuple(NEW_TOKENS), default=list(NEW_TOKENS), help="workloads (all)")
    add("--precision", nargs="+", choices=("fp32", "bf16"), default=["bf16"] if native else ["fp32"],
        help="arithmetic (bf16 where it is native, else fp32)")  # fmt: skip
    add("--repeat", type=int, default=1, help="repetitions (1)")
    add("--prompts", type=int, default=48, help="prompts (48)")
    add("--k", type=int, default=8, help="responses a prompt (8)")
    add("--seed", type=int, default=0, help="seed (0)")
    add("--token-budget", type=int, default=32_768, help="tokens of a batch of our engine (32768, its default)")
    add("--plain-prompts", type=int, default=16, help="prompts of a batch of plain generate; 0: all (16)")
    add("--threads", type=int, default=2, help="threads of each side (2)")
    add("--vllm-python", type=Path, default=Path(".venv-vllm/bin/python"), help="interpreter of the vLLM environment")
    add("--model", default="smollm2-135m-instruct", help="alias or folder (smollm2-135m-instruct)")
    add("--json", type=Path, metavar="FILE", help="write the comparisons here")
    return parser.parse_args(arguments)


def _title(settings: Settings, workload: Workload) -> str:
    tokenizer = load_tokenizer(settings.model)
    lengths = [len(render(tokenizer, turns)) for turns in prompts_of(workload, settings.prompts)]
    return (
        f"{workload}, {settings.precision}: {len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens (mean "
        f"{statistics.mean(lengths):.0f}), k = {settings.k}, at most {NEW_TOKENS[workload]} new tokens"
    )


def _run(
    settings: Settings, sides: Sequence[str], workloads: Sequence[Workload], repeat: int
) -> dict[Workload, dict[str, Result]]:
    runs: dict[Workload, dict[str, list[Measured[Answers]]]] = {
        workload: {name: [] for name in sides} for workload in workloads
    }
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(BUILD[name], settings)) for name in sides}
        for workload in workloads:
            for _ in range(repeat):
                for name, worker in workers.items():
                    runs[workload][name].append(worker.measure("run", workload))
        labels = {name: worker.label for name, worker in workers.items()}
    return {
        workload: {name: Result(labels[name], tuple(done)) for name, done in by_side.items()}
        for workload, by_side in runs.items()
    }


def _speed_up(workload: Workload, ours: Result, peer: Result) -> float:
    return peer.seconds / ours.seconds if workload == "constrained" else ours.rate / peer.rate


def _table(title: str, workload: Workload, results: dict[str, Result]) -> Table:
    table = Table("side", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("seconds", "tokens", "tokens/s", "peak MB", "increase MB", "ours is faster"):
        table.add_column(column, justify="right", no_wrap=True)
    ours = results.get("ours")
    for result in results.values():
        table.add_row(
            result.label,
            f"{result.seconds:.1f}",
            str(result.runs[0].report.tokens),
            f"{result.rate:.0f}",
            f"{result.peak:.0f}",
            f"{result.increase:.0f}",
            "" if ours is None or result is ours else f"{_speed_up(workload, ours, result):.1f}x",
        )
    return table


def _comparisons(case: str, workload: Workload, results: dict[str, Result]) -> list[Comparison]:
    ours = results.get("ours")
    if ours is None:
        return []
    rows: list[Comparison] = []
    for name, peer in results.items():
        if name == "ours":
            continue
        peer_name = f"transformers {version('transformers')} {peer.label}" if name == "generate" else peer.label
        rows += compare(case, peer_name, ours, peer, (ours.rate, peer.rate))
        # Which of the ratios above counts differs from workload to workload.
        rows.append(Comparison(case, 1.0, 1.0, peer_name, round(_speed_up(workload, ours, peer), 3), "times as fast"))
    return rows


if __name__ == "__main__":
    sys.exit(main())
