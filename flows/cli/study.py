"""``knowrl study``: several runs one after another, with one table at the end."""

import shlex
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from flows.cli.console import out, printable
from flows.cli.environment import prepare_environment
from flows.cli.live import run_reporter
from flows.cli.machine import named
from flows.cli.options import SetOption, command
from flows.cli.run import as_stage_error, ended_in_order
from knowrl_core.errors import StageError


def study(
    files: Annotated[list[str], typer.Argument(help="Profiles or YAML files, one for each run.")],
    set_: SetOption = None,
) -> None:
    """Do several runs; each shares the iterations that it has in common with one before it."""
    prepare_environment()
    from flows.study import conduct, members, summary
    from flows.train import train
    from tasks.progress import terminal

    configs = [named(config) for config in members(files, set_ or [])]
    again = shlex.join([command("knowrl"), "study", *files, *(f"--set={item}" for item in set_ or [])])

    with (
        ended_in_order(
            lambda error: as_stage_error(error, again),
            lambda: f"what is committed stands. Go on with: [bold]{printable(again)}[/]",
        ),
        run_reporter() as reporter,
        terminal(reporter),
    ):
        done = conduct(configs, lambda config: train(config=config))
    rows = summary(done)
    table = Table(title="the best iteration of each run", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for name in max(rows, key=len):
        table.add_column(name.replace(" ", "\n"), vertical="bottom", justify="left" if name == "run" else "right")
    for row in rows:
        table.add_row(*(printable(text) for text in row.values()))
    out.print(table)
    failed = [f"{member.run}: {member.error}" for member in done if member.error]
    if failed:
        raise StageError(
            f"{len(failed)} of {len(done)} runs did not end: {'; '.join(failed)}"[:4_000], hint=f"Go on with: {again}"
        )
