"""``knowrl evaluate``: one model on the labelled probe, without a run."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.cli.console import TerminalReporter, out, printable
from flows.cli.environment import prepare_environment
from flows.cli.options import ConfigOption, JsonOption, SetOption
from knowrl_core.config import DEFAULT_PROFILE, load_config


def evaluate(
    model: Annotated[str, typer.Option("--model", "-m", help="Folder, Hub id or alias of a causal language model.")],
    config: ConfigOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    predictions: Annotated[
        Path | None, typer.Option("--out", help="Write the predictions to this Parquet file.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Judge the probe's tasks with a model and compare with the truth, as stage evaluate does in iteration 0."""
    prepare_environment()
    from knowrl_core.storage.schemas import PredictionRecord
    from knowrl_core.storage.tables import write_table
    from tasks.evaluate import evaluate_alone

    resolved = load_config(config, [*(set_ or []), f"model.path={model}"])
    with TerminalReporter() as reporter:
        metrics, rows = evaluate_alone(resolved, reporter)
    if predictions:
        write_table(predictions, PredictionRecord, rows)
    if json_:
        typer.echo(json.dumps(metrics, indent=2))
        return
    table = Table(title=printable(f"{model} on the probe ({len(rows)} tasks)"), title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, "-" if value is None else f"{value:.4f}")
    out.print(table)
