"""``knowrl evaluate``: one model on labelled sets, without a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.console import err, printable
from flows.cli.environment import prepare_environment
from flows.cli.options import ConfigOption, JsonOption, SetOption
from knowrl_core.config import DEFAULT_PROFILE, Config, load_config
from knowrl_core.errors import InputError

if TYPE_CHECKING:
    from knowrl_core.evaluation import Assessment, Benchmark, OpenSet
    from knowrl_core.evaluation.compare import Baseline


ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Folder, Hub id or alias of a causal language model.")
]
BenchmarkOption = Annotated[
    list[str] | None,
    typer.Option("--benchmark", "-b", help="A labelled set (see --list); may be repeated. Without it, the probe."),
]
PathOption = Annotated[
    list[str] | None,
    typer.Option(
        "--path",
        "-p",
        help="File or folder of the benchmark; one for each that is not built in, in their order, or one folder for "
        "all. Without it, the Hub.",
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(min=0, help="Most tasks a set, drawn by the seed in the set's mix of labels; 0 means all."),
]
ModeOption = Annotated[
    Literal["constrained", "free"] | None,
    typer.Option(help="Exact label probabilities, or free text (verdict.mode)."),
]
ViewsOption = Annotated[
    str | None,
    typer.Option(help="Views to average over, with commas (verdict.views), such as feasible_first,infeasible_first."),
]
BaselineOption = Annotated[
    Path | None, typer.Option(help="Predictions of another model (--out of an earlier call) to compare with.")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Write the predictions to this Parquet file.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of draws, folds and resampling (run.seed).")]
ListOption = Annotated[bool, typer.Option("--list", help="List the benchmarks with licence and citation, and exit.")]


def evaluate(
    *,
    model: ModelOption = None,
    benchmark: BenchmarkOption = None,
    path: PathOption = None,
    limit: LimitOption = None,
    mode: ModeOption = None,
    views: ViewsOption = None,
    baseline: BaselineOption = None,
    predictions: OutOption = None,
    seed: SeedOption = None,
    list_: ListOption = False,
    config: ConfigOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Judge labelled tasks with a model and compare with the truth, as stage evaluate does, beside controls."""
    prepare_environment()
    from flows.cli.assessment import as_json, show
    from knowrl_core.evaluation import BENCHMARKS, controls_only
    from tasks.open_sets import open_baselines, open_sets

    if list_:
        _list(list(BENCHMARKS.values()), as_json=json_)
        return
    if model is None and not benchmark:
        raise InputError(
            "got no model, expected --model",
            hint="Such as --model smollm2-135m-instruct. With --benchmark and without --model only controls are shown.",
        )
    options = {"model.path": model, "verdict.mode": mode, "run.seed": seed}
    overrides = [*(set_ or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]
    if views is not None:
        overrides.append(f"verdict.views={json.dumps([name.strip() for name in views.split(',')])}")
    resolved = load_config(config, overrides)
    sets = open_sets(resolved, benchmark or [], path or [], limit)
    baselines = open_baselines(baseline, sets) if baseline else {}
    if model is None:
        found = [controls_only(item, resamples=resolved.evaluation.bootstrap, seed=resolved.run.seed) for item in sets]
    else:
        found = _judge(resolved, sets, predictions, baselines)
    if json_ and not benchmark:
        typer.echo(json.dumps({row.metric: row.value for row in found[0].metrics}, indent=2))
    elif json_:
        typer.echo(json.dumps({"model": model, "benchmarks": [as_json(item) for item in found]}, indent=2))
    else:
        for assessment in found:
            show(assessment)


def _list(benchmarks: "list[Benchmark]", *, as_json: bool) -> None:
    from flows.cli.assessment import describe, show_benchmarks

    if as_json:
        typer.echo(json.dumps(describe(benchmarks), indent=2))
    else:
        show_benchmarks(benchmarks)


def _judge(
    config: Config, sets: "list[OpenSet]", out: Path | None, baselines: "Mapping[str, Baseline]"
) -> "list[Assessment]":
    from flows.cli.assessment import JudgingBar
    from tasks.evaluate import evaluate_model

    names = ", ".join(f"{item.name} ({item.size} tasks)" for item in sets)
    err.print(printable(f"{config.model.path}: {names}"), soft_wrap=True)
    with JudgingBar("judging") as reporter:
        return evaluate_model(config, sets, reporter, out=out, baselines=baselines)
