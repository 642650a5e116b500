"""The labelled sets of ``evaluation.benchmarks``."""

from collections import Counter
from pathlib import Path

from knowrl_core.config import Config
from knowrl_core.evaluation import OpenSet, find_benchmark, find_files, open_set
from knowrl_core.places import expanded
from knowrl_core.resources import shipped
from knowrl_core.storage.files import sha256_file
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.verify import EXTERNAL

PROBE, FROZEN = "probe", "frozen"


def configured_sets(config: Config) -> list[OpenSet]:
    """The sets of ``evaluation.benchmarks``, read and checked.

    Raises:
        InputError: A file is missing or malformed.
    """
    return [
        open_set(find_benchmark(item.name), _path(item.path), limit=item.limit, seed=config.run.seed)
        for item in config.evaluation.benchmarks
    ]


def benchmark_tasks(config: Config) -> dict[str, list[tuple[str, str]]]:
    """All tasks of the sets of ``evaluation.benchmarks`` as (id, text), whatever their limits, by set.

    Raises:
        InputError: A file is missing or malformed.
    """
    return {
        item.name: [(task.id, task.task) for task in find_benchmark(item.name).load(_path(item.path), Counter())]
        for item in config.evaluation.benchmarks
    }


def benchmark_refs(config: Config) -> list[FileRef]:
    """The files of ``evaluation.benchmarks`` as inputs of a stage."""
    return [
        FileRef(path=f"{EXTERNAL}benchmarks/{name}/{file.name}", sha256=sha256_file(file))
        for name, files in benchmark_files(config).items()
        for file in files
    ]


def benchmark_files(config: Config) -> dict[str, list[Path]]:
    """The files of ``evaluation.benchmarks`` by set; those from the Hub have none."""
    files: dict[str, list[Path]] = {}
    for item in config.evaluation.benchmarks:
        benchmark = find_benchmark(item.name)
        path = _path(item.path) or (shipped("seeds", benchmark.files[0]) if benchmark.builtin else None)
        if path is not None:
            files[item.name] = find_files(item.name, path, benchmark.files)
    return files


def _path(text: str | None) -> Path | None:
    return None if text is None else expanded(text)
