"""``knowrl seeds check``: find what is wrong with seed files before they are used."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import out, printable
from flows.cli.options import JsonOption
from knowrl_core.resources import shipped

app = typer.Typer(no_args_is_help=True, help="Work with seed files.")


@app.callback()
def _seeds() -> None:
    """Work with seed files."""


@app.command("check")
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Seed files (JSON lines); without any, those that ship.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Find broken rows, duplicates and imbalance in seed files, taken together. Exit code 2 if there are errors."""
    from knowrl_core.seeds import check_files

    report = check_files(files or [shipped("seeds", "feasible.jsonl"), shipped("seeds", "infeasible.jsonl")])
    if json_:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        for problem in report.problems:
            colour = "red" if problem.severity == "error" else "yellow"
            out.print(f"[{colour}]{problem.severity}[/] {printable(str(problem))}", soft_wrap=True)
        for file in report.files:
            labels = ", ".join(f"{count} {label}" for label, count in file.labels.items())
            out.print(printable(f"{file.file}: {file.tasks} tasks, {labels}"), soft_wrap=True)
        out.print(f"{len(report.errors)} errors, {len(report.warnings)} warnings")
    if not report.ok:
        raise typer.Exit(2)
