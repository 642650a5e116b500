"""How well do likelihood, verdict and the two together rank the probe (``consensus.reward.votes: channel``, ``joint``)?

    .venv/bin/python -m benchmarks.channel --policy runs/cpu/iterations/001/update/checkpoint --json channel.json

The probe's tasks are judged by the likelihood that ``--model`` gives them under the two introspection prompts
(``knowrl_core/verdicts/channel.py``), with few-shot examples drawn anew each time, and by the verdicts of ``--policy``
in two views. The table has the area under the ROC curve, with a 95 % bootstrap interval over the tasks, and balanced
accuracy against the median of all tasks; the last line says how alike the two judges err: the rank correlation of their
scores among tasks of one label, averaged over the two. Nothing is trained, and the labels of the probe are used for the
figures alone.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata, spearmanr

from benchmarks.ranking import area, shown
from knowrl_core.config.learning import IntrospectionConfig, VerdictConfig
from knowrl_core.config.system import EngineConfig, ModelConfig, PromptsConfig
from knowrl_core.engines import GenerationEngine, build_engine
from knowrl_core.labels import INFEASIBLE
from knowrl_core.models.load import setup_torch
from knowrl_core.models.resolve import resolve_model
from knowrl_core.prompts import load_prompts
from knowrl_core.resources import shipped
from knowrl_core.seeds import load_seed_file, load_seeds
from knowrl_core.verdicts import judge_tasks
from knowrl_core.verdicts.channel import Channel, judge_by_channel

Floats = NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    options = _parse(arguments)
    setup_torch(0)
    probe = load_seed_file(shipped("seeds", "probe.jsonl"))
    tasks = [(task.id, task.task) for task in probe]
    truth = np.array([task.label == INFEASIBLE for task in probe])
    verdict, seconds = _by_verdict(_engine(options.policy or options.model), tasks, options.seed)
    rows = [_figures("verdict", verdict, seconds, truth, options.seed)]
    scores, spent = _by_channel(_engine(options.model), tasks, options)
    for draws in range(1, options.draws + 1):
        share = spent * draws / options.draws
        rows.append(_figures(f"likelihood, draws: {draws}", scores[:, :draws].mean(1), share, truth, options.seed))
    likelihood = scores.mean(1)
    together = rankdata(verdict) + rankdata(likelihood)
    rows.append(_figures("both, by rank", together, seconds + spent, truth, options.seed))
    _show(rows, f"{options.model}, {options.shots} examples a prompt, seed {options.seed}, {len(probe)} tasks")
    alike = float(np.mean([spearmanr(verdict[of], likelihood[of]).statistic for of in (truth, ~truth)]))
    print(f"rank correlation of verdict and likelihood within a label: {alike:.2f}")
    if options.json:
        text = json.dumps({"judges": rows, "correlation_within_labels": alike}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _engine(model: str) -> GenerationEngine:
    return build_engine(EngineConfig(), resolve_model(ModelConfig(path=model)).path)


def _by_verdict(engine: GenerationEngine, tasks: Sequence[tuple[str, str]], seed: int) -> tuple[Floats, float]:
    """[tasks] mean probability of infeasible over the views, and seconds."""
    start = time.perf_counter()
    views = ("feasible_first", "infeasible_first")
    records = judge_tasks(
        engine, tasks, config=VerdictConfig(k=len(views), views=views), prompts=load_prompts(PromptsConfig()),
        run_seed=seed, iteration=0, stage="evaluate", engine_name=engine.name, policy="initial",
    )  # fmt: skip
    table = np.array([row.p_infeasible for row in records], dtype=np.float64).reshape(len(tasks), -1)
    return table.mean(1), time.perf_counter() - start


def _by_channel(
    engine: GenerationEngine, tasks: Sequence[tuple[str, str]], options: argparse.Namespace
) -> tuple[Floats, float]:
    """[tasks, draws] probability of infeasible, and seconds for all draws."""
    start = time.perf_counter()
    seeds = load_seeds(shipped("seeds", "feasible.jsonl"), shipped("seeds", "infeasible.jsonl"))
    channel = Channel(options.draws, options.shots, options.draws)
    records = judge_by_channel(
        engine, tasks, channel=channel, introspection=IntrospectionConfig(), seeds=seeds,
        prompts=load_prompts(PromptsConfig()), run_seed=options.seed, iteration=0, policy="initial",
    )  # fmt: skip
    table = np.array([row.p_infeasible for row in records], dtype=np.float64).reshape(len(tasks), -1)
    return table, time.perf_counter() - start


def _figures(name: str, scores: Floats, seconds: float, truth: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    said = scores > np.median(scores)
    return {
        "judge": name,
        **area(truth, scores, seed),
        "balanced_accuracy_at_median": float((said[truth].mean() + (~said[~truth]).mean()) / 2),
        "seconds": seconds,
    }


def _show(rows: Sequence[dict[str, Any]], title: str) -> None:
    table = Table("judge", "AUROC (95 %)", "balanced accuracy at the median", "seconds", title=title, box=box.SIMPLE)
    for row in rows:
        table.add_row(
            row["judge"],
            shown(row),
            f"{row['balanced_accuracy_at_median']:.3f}",
            f"{row['seconds']:.0f}",
        )
    Console().print(table)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="alias, folder or Hub id (%(default)s)")
    parser.add_argument("--policy", help="model whose verdicts are asked, such as a checkpoint (the same model)")
    parser.add_argument("--draws", type=int, default=8, help="times that examples are drawn (%(default)s)")
    parser.add_argument("--shots", type=int, default=16, help="examples in a prompt (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
