"""Where rows come from: a file, a folder with the authors' files, or the Hugging Face Hub."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowrl_core.errors import InputError
from knowrl_core.evaluation.benchmarks.model import BenchmarkTask, LeftOut, LeftOuts, Load
from knowrl_core.evaluation.benchmarks.row import HINT, Row
from knowrl_core.seeds.problems import show

Read = Callable[[Path], Iterator[Row]]
ToTask = Callable[[Row], BenchmarkTask | LeftOut]


@dataclass(frozen=True, slots=True)
class HubPart:
    """One file of a set on the Hub.

    Attributes:
        part: Name that the rows carry (:attr:`Row.part`).
        repo: Dataset id.
        split: Split of it.
        config: Configuration, if it has several.
        data_file: File of the repository, if it must be named.
    """

    part: str
    repo: str
    split: str
    config: str | None = None
    data_file: str | None = None


def loader(name: str, files: Sequence[str], read: Read, to_task: ToTask, hub: Sequence[HubPart] = ()) -> Load:
    """A benchmark's loader.

    Args:
        name: The benchmark, for messages.
        files: Its files as its authors publish them; a folder must hold all of them.
        read: Reads one file.
        to_task: Turns a row into a task.
        hub: Where its rows are on the Hub.
    """

    def load(path: Path | None, left_out: LeftOuts) -> Iterator[BenchmarkTask]:
        seen: set[int] = set()  # hashes, since a large set's ids would take more memory than all else
        for row in _rows(name, path, files, read, hub):
            task = to_task(row)
            if isinstance(task, LeftOut):
                left_out[task.reason] += 1
                continue
            if hash(task.id) in seen:
                raise InputError(f"{row.place}: field 'id': got {show(task.id)} again, expected it once", hint=HINT)
            seen.add(hash(task.id))
            yield task

    return load


def find_files(name: str, path: Path, files: Sequence[str]) -> list[Path]:
    """The files of a benchmark that a path means: itself, or the authors' files in the folder or one below it.

    Raises:
        InputError: There is nothing at the path, or a folder lacks one of the files.
    """
    try:
        if path.is_file():
            return [path]
        if not path.is_dir():
            what = "no regular file" if path.exists() else "nothing"
            raise InputError(
                f"{name}: {str(path)!r}: got {what}, expected {_named(files)}, or a folder with it", hint=HINT
            )
        found = {file: next(iter([*path.glob(file), *sorted(path.glob(f"*/{file}"))]), None) for file in files}
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(f"{name}: {str(path)!r}: cannot be read: {error}", hint=HINT) from None
    missing = [file for file, place in found.items() if place is None]
    if missing:
        raise InputError(
            f"{name}: {str(path)!r}: got a folder without {' and '.join(missing)}, expected {_named(files)} in it",
            hint=HINT,
        )
    return [place for place in found.values() if place is not None]


def _rows(name: str, path: Path | None, files: Sequence[str], read: Read, hub: Sequence[HubPart]) -> Iterator[Row]:
    if path is None:
        if not hub:
            raise InputError(
                f"{name}: got no path, and it is not on the Hugging Face Hub",
                hint=f"Download {_named(files)} (`knowrl evaluate --list` says from where) and give it with --path.",
            )
        for part in hub:
            yield from _hub_rows(name, part, files)
        return
    count = 0
    for file in find_files(name, path, files):
        try:
            for row in read(file):
                count += 1
                yield row
        except OSError as error:
            raise InputError(f"{name}: {str(file)!r}: cannot be read: {error.strerror or error}", hint=HINT) from None
    if not count:
        raise InputError(f"{name}: {str(path)!r}: got no row, expected at least one task", hint=HINT)


def _hub_rows(name: str, part: HubPart, files: Sequence[str]) -> Iterator[Row]:
    hint = f"Or download {_named(files)} (`knowrl evaluate --list` says from where) and give it with --path."
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"{name}: got no path, and the package 'datasets' is not installed, which reads it from the Hub",
            hint=f"pip install 'knowrl[hub]'. {hint}",
        ) from None
    try:
        data: Any = datasets.load_dataset(part.repo, part.config, split=part.split, data_files=part.data_file)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise InputError(
            f"{name}: {part.repo} cannot be read from the Hub: {type(error).__name__}: {reason}",
            hint=f"Check the network (and HF_HUB_OFFLINE). {hint}",
        ) from None
    for index, row in enumerate(data):
        yield Row(dict(row), f"{part.repo}/{part.part}[{index}]", part.part, index)


def _named(files: Sequence[str]) -> str:
    return " and ".join(files)
