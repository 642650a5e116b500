"""Capacity or labels: what limits self-knowledge? A linear readout of the model's hidden states says how much is there.

    .venv/bin/python -m benchmarks.limits --json limits.json
    .venv/bin/python -m benchmarks.limits --selfaware SelfAware.json --limit 400

Each task is put into the verdict prompt (view ``feasible_first``), and the hidden states of every layer at its last
token, from which the verdict is read, are kept. A logistic regression on them (standardised; layer and L2 strength by
cross-validation within its own training tasks) is trained on one set and tested on another. It is a diagnosis: what it
learns from the probe, the paired set or a benchmark goes nowhere else.

- *Trained on seeds:* what the hundred labels can give without changing the model.
- *Cross-validated within a set:* what its own labels could give; twins of a pair stay in one fold.
- *More labels:* seeds and parts of the paired set together, tested on the probe. A curve that still rises says that
  labels are short; a flat one, that the representation is.

Areas under the ROC curve with a 95 % bootstrap interval over the test tasks.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.ranking import area, shown
from knowrl_core.config.learning import VerdictConfig
from knowrl_core.config.system import ModelConfig, PromptsConfig
from knowrl_core.engines.chat import render
from knowrl_core.evaluation.benchmarks.model import BenchmarkTask
from knowrl_core.evaluation.benchmarks.registry import find_benchmark
from knowrl_core.evaluation.benchmarks.seed_file import from_seeds
from knowrl_core.labels import INFEASIBLE
from knowrl_core.models.load import load_policy, load_tokenizer, setup_torch
from knowrl_core.models.resolve import resolve_model
from knowrl_core.prompts import load_prompts
from knowrl_core.resources import shipped
from knowrl_core.seeds import load_seeds
from knowrl_core.verdicts.ask import Question, plan_asks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2)
"""C of the logistic regression: strong, since there are more features than tasks."""
LAYER_STEP = 3
"""Neighbouring layers say nearly the same, and each is fitted many times."""


class Features(NamedTuple):
    """A set as the readout sees it."""

    states: NDArray[np.float32]
    """[tasks, layers, width]."""
    infeasible: Ints
    """[tasks] 1 for infeasible."""
    groups: NDArray[np.str_]
    """[tasks] twins share a value."""

    def rows(self, which: Ints) -> "Features":
        """Some of the tasks."""
        return Features(self.states[which], self.infeasible[which], self.groups[which])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    options = _parse(arguments)
    setup_torch(0)
    folder = resolve_model(ModelConfig(path=options.model)).path
    policy, tokenizer = load_policy(folder, device="cpu", dtype=torch.float32), load_tokenizer(folder)
    sets = {name: _features(policy, tokenizer, tasks) for name, tasks in _sets(options).items()}
    rows = [
        _row(f"seeds ({len(sets['seeds'].infeasible)})", name, across(sets["seeds"], tasks), tasks, options.seed)
        for name, tasks in sets.items()
        if name != "seeds"
    ]
    rows += [_row("itself, 5 folds", name, within(tasks), tasks, options.seed) for name, tasks in sets.items()]
    every = joined(sets["seeds"], sets["paired"])
    for size in (25, 50, 100, 200, 400):
        scores = np.mean([across(every.rows(some), sets["probe"]) for some in _samples(every, size, options)], axis=0)
        rows.append(_row(f"{size} of seeds and paired", "probe", scores, sets["probe"], options.seed))
    _show(rows, f"{options.model}, seed {options.seed}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def _sets(options: argparse.Namespace) -> dict[str, Sequence[BenchmarkTask]]:
    seeds = load_seeds(shipped("seeds", "feasible.jsonl"), shipped("seeds", "infeasible.jsonl"))
    sets: dict[str, Sequence[BenchmarkTask]] = {
        "seeds": from_seeds(seeds),
        "probe": _benchmark("probe", None),
        "paired": _benchmark("paired", None),
    }
    if options.selfaware:
        tasks = _benchmark("selfaware", options.selfaware)
        some = np.random.default_rng(options.seed).permutation(len(tasks))[: options.limit]
        sets["selfaware"] = [tasks[place] for place in some]
    return sets


def _benchmark(name: str, path: Path | None) -> list[BenchmarkTask]:
    return list(find_benchmark(name).load(path, Counter()))


def _features(policy: Any, tokenizer: Any, tasks: Sequence[BenchmarkTask]) -> Features:
    template = load_prompts(PromptsConfig()).verdict("constrained")
    asks = plan_asks(
        [Question(str(place), task.task) for place, task in enumerate(tasks)], template, VerdictConfig(k=1),
        k=1, run_seed=0, iteration=0, stage="limits",
    )  # fmt: skip
    states = []
    with torch.inference_mode():
        for ask in asks:
            layers = policy(torch.tensor([render(tokenizer, ask.turns)]), output_hidden_states=True).hidden_states
            states.append(torch.stack([layer[0, -1] for layer in layers]).numpy())
    return Features(
        np.stack(states),
        np.array([task.label == INFEASIBLE for task in tasks], dtype=np.int64),
        np.array([task.pair or task.id for task in tasks]),
    )


def joined(*parts: Features) -> Features:
    """Several sets as one."""
    return Features(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def readout(train: Features) -> tuple[int, Pipeline]:
    """The layer and the fitted regression, both chosen by cross-validation within ``train`` alone."""
    layers = range(0, train.states.shape[1], LAYER_STEP)
    best = max(
        ((layer, strength) for layer in layers for strength in STRENGTHS),
        key=lambda choice: float(roc_auc_score(train.infeasible, _folded(train, *choice))),
    )
    layer, strength = best
    return layer, _regression(strength).fit(train.states[:, layer], train.infeasible)


def _regression(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=300))


def _folded(tasks: Features, layer: int, strength: float) -> Floats:
    """[tasks] each scored by a regression of the other folds."""
    scores = np.empty(len(tasks.infeasible))
    x = tasks.states[:, layer]
    for train, test in _folds(tasks):
        scores[test] = _regression(strength).fit(x[train], tasks.infeasible[train]).decision_function(x[test])
    return scores


def _folds(tasks: Features) -> list[tuple[Ints, Ints]]:
    return list(GroupKFold(FOLDS, shuffle=True, random_state=0).split(tasks.states, groups=tasks.groups))


def across(train: Features, test: Features) -> Floats:
    """[test tasks] scores by a readout of another set; above 0 it says infeasible."""
    layer, regression = readout(train)
    return regression.decision_function(test.states[:, layer])  # type: ignore[no-any-return]


def within(tasks: Features) -> Floats:
    """[tasks] each scored by a readout whose layer and strength the other folds chose as well."""
    scores = np.empty(len(tasks.infeasible))
    for train, test in _folds(tasks):
        scores[test] = across(tasks.rows(train), tasks.rows(test))
    return scores


def _samples(tasks: Features, size: int, options: argparse.Namespace) -> list[Ints]:
    """Samples of ``size`` tasks, all of them where there are no more; several, since small ones differ a lot."""
    rng = np.random.default_rng(options.seed)
    repeats = 1 if size >= len(tasks.infeasible) else options.repeats
    return [rng.permutation(len(tasks.infeasible))[:size] for _ in range(repeats)]


def _row(trained: str, tested: str, scores: Floats, test: Features, seed: int) -> dict[str, Any]:
    return {
        "trained": trained,
        "tested": tested,
        "tasks": len(test.infeasible),
        **area(test.infeasible, scores, seed),
        "balanced_accuracy": float(balanced_accuracy_score(test.infeasible, scores > 0)),
    }


def _show(rows: Sequence[dict[str, Any]], title: str) -> None:
    table = Table("trained on", "tested on", "tasks", "AUROC (95 %)", "balanced accuracy", title=title, box=box.SIMPLE)
    for row in rows:
        table.add_row(row["trained"], row["tested"], str(row["tasks"]), shown(row), f"{row['balanced_accuracy']:.3f}")
    Console().print(table)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="alias, folder or Hub id (%(default)s)")
    parser.add_argument("--selfaware", type=Path, help="SelfAware.json, to have that set as well")
    parser.add_argument("--limit", type=int, default=400, help="tasks of SelfAware (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="samples of each size (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
