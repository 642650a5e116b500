"""Make a report of runs and write it."""

from collections.abc import Sequence
from pathlib import Path

from knowrl_core.errors import InputError
from knowrl_core.report.gather import Report, gather
from knowrl_core.report.html import render
from knowrl_core.report.read import read_run
from knowrl_core.storage.files import write_atomic
from knowrl_core.storage.layout import RunPaths


def make_report(runs: Sequence[RunPaths], *, state: str | None = None) -> Report:
    """Gather the data of a report.

    Args:
        runs: The runs, already looked up (:func:`knowrl_core.storage.roots.look`).
        state: How the runs stand, where the caller knows better than their records.

    Raises:
        InputError: There is no such run.
        ArtifactError: A run is damaged.
    """
    return gather([read_run(paths, state=state) for paths in runs])


def write_report(report: Report, file: Path) -> None:
    """Write a report as HTML; the file is replaced as a whole.

    Raises:
        InputError: It cannot be written.
    """
    text = render(report)
    try:
        write_atomic(file, text, durable=False)
    except OSError as error:
        raise InputError(
            f"{str(file)!r}: cannot be written: {error.strerror or error}", hint="Choose another place with --out."
        ) from None
