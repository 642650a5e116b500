"""The labelled sets that an evaluation without a run names."""

from collections.abc import Sequence
from pathlib import Path

from knowrl_core.config import Config
from knowrl_core.errors import InputError
from knowrl_core.evaluation import OpenSet, find_benchmark, open_set, read_baseline
from knowrl_core.evaluation.compare import Baseline
from knowrl_core.places import expanded
from tasks.prepare import seed_path


def open_sets(config: Config, names: Sequence[str], paths: Sequence[str], limit: int | None) -> list[OpenSet]:
    """Read and check labelled sets before any model is loaded.

    Args:
        config: Where the probe lies, its limit, and the seed of draws.
        names: The sets; none means the probe.
        paths: File or folder of each set that is not built in, in their order, or one folder for all.
        limit: Most tasks a set; 0 means all, None the limit of the config for the probe and all of the others.

    Raises:
        InputError: A name is unknown or there twice, or a path is missing or holds no such set.
    """
    benchmarks = [find_benchmark(name) for name in names or ["probe"]]
    if len(set(names)) < len(names):
        raise InputError(f"got benchmarks {', '.join(names)}, expected each once")
    takers = [item for item in benchmarks if not item.builtin] or benchmarks
    if len(paths) == 1 and expanded(paths[0]).is_dir():
        paths = [*paths] * len(takers)
    if paths and len(paths) != len(takers):
        expected = ", ".join(item.name for item in takers)
        raise InputError(
            f"got {len(paths)} paths, expected one for each of {expected}, in this order, or one folder for all"
        )
    places = {item.name: expanded(place) for item, place in zip(takers, paths, strict=False)}
    opened = []
    for item in benchmarks:
        place, most = places.get(item.name), limit
        if item.name == "probe":
            place = place or seed_path(config.files.probe, "probe.jsonl")
            most = config.evaluation.probe_limit if limit is None else limit
        opened.append(open_set(item, place, limit=most or 0, seed=config.run.seed))
    return opened


def open_baselines(path: Path, sets: Sequence[OpenSet]) -> dict[str, Baseline]:
    """Predictions of another model, by set.

    Args:
        path: Its Parquet file.
        sets: The sets that are compared; others in the file do not matter.

    Raises:
        InputError: The file holds no predictions, or none of one of the sets.
    """
    found = read_baseline(path)
    for item in sets:
        if item.name not in found:
            have = ", ".join(found) or "none"
            raise InputError(f"baseline {str(path)!r}: got sets {have}, expected {item.name!r} among them")
    return found
