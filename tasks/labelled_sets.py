"""The labelled sets of ``evaluation.benchmarks``."""

from pathlib import Path

from knowrl_core.config import Config
from knowrl_core.evaluation import OpenSet, find_benchmark, find_files, open_set
from knowrl_core.resources import shipped


def configured_sets(config: Config) -> list[OpenSet]:
    """The sets of ``evaluation.benchmarks``, read and checked.

    Raises:
        InputError: A file is missing or malformed.
    """
    return [
        open_set(find_benchmark(item.name), _path(item.path), limit=item.limit, seed=config.run.seed)
        for item in config.evaluation.benchmarks
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
    return None if text is None else Path(text).expanduser()
