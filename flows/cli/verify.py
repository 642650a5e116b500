"""``knowrl verify``: every file of a run against what its manifests say."""

import json
import time

import typer

from flows.cli.console import err, out, printable
from flows.cli.options import JsonOption, RunArgument, SetOption, locate, resume_command
from knowrl_core.errors import ArtifactError
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.verify import inspect_run


def verify(run: RunArgument, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Read all of a run and compare it with its manifests; exit code 4 if anything is damaged."""
    paths = locate(run, set_)
    stages = RunFile.read(paths).stages
    begin = time.monotonic()
    found = inspect_run(paths, stages)
    record = RunFile.damage(paths)
    if record is not None:
        found.problems.insert(0, record)
    seconds = time.monotonic() - begin
    if json_:
        typer.echo(
            json.dumps(
                {
                    "name": paths.name,
                    "stages": found.stages,
                    "files": found.files,
                    "bytes": found.size,
                    "pruned_files": found.pruned,
                    "seconds": round(seconds, 3),
                    "problems": [error.message for error in found.problems],
                },
                indent=2,
            )
        )
        if found.problems:
            raise typer.Exit(ArtifactError.exit_code)
        return
    rate = found.size / 1e6 / max(seconds, 1e-9)
    pruned = f", {found.pruned} pruned on purpose" if found.pruned else ""
    summary = f"{found.stages} stages, {found.files} files{pruned}: {found.size / 1e6:,.1f} MB in {seconds:.1f} s"
    if not found.problems:
        out.print(printable(f"run {paths.name} is whole: {summary} ({rate:,.0f} MB/s)"), soft_wrap=True)
        return
    for error in found.problems[:-1]:
        err.print(printable(error.message), soft_wrap=True)
    raise ArtifactError(
        found.problems[-1].message,
        hint=f"{len(found.problems)} problem(s) in {summary}. What is damaged, and what follows from it, is done again "
        f"by: {resume_command(paths)} --repair",
    )
