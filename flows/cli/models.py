"""``knowrl models``: the checkpoints of a run, and one of them as a model folder of its own."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import out, printable
from flows.cli.options import RunArgument, SetOption, locate, stored_config
from knowrl_core.places import expanded

app = typer.Typer(no_args_is_help=True, help="Work with a run's checkpoints.")


@app.callback()
def _models() -> None:
    """Work with a run's checkpoints."""


@app.command("export")
def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="Folder to write; it must be new or empty.")],
    iteration: Annotated[
        str, typer.Option("--iteration", "-i", help="best (balanced accuracy on the probe), last, or a number.")
    ] = "best",
    set_: SetOption = None,
) -> None:
    """Write a checkpoint as a plain Hugging Face folder with a model card, which transformers and vLLM load."""
    from knowrl_core.models.export import chosen_iteration, export_checkpoint
    from knowrl_core.storage.verify import committed_manifests
    from tasks.starting import keys_of

    paths = locate(run, set_)
    history = committed_manifests(paths, keys_of(stored_config(paths, set_)))
    if paths.remote is not None:
        paths.remote.pull()
    number = chosen_iteration(paths, history, iteration)
    export_checkpoint(paths, history, number, expanded(to).absolute())
    out.print(printable(f"iteration {number} of run {paths.name} is in {to}"), soft_wrap=True)
