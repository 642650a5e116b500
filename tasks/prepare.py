"""Check and load all that a run needs before anything is created."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from knowrl_core.config import Config
from knowrl_core.errors import InputError
from knowrl_core.labels import FEASIBLE, INFEASIBLE
from knowrl_core.models import ResolvedModel, resolve_model
from knowrl_core.places import expanded
from knowrl_core.prompts import Prompts, check_views, load_prompts
from knowrl_core.resources import shipped
from knowrl_core.rl.distributed.config import check_deepspeed
from knowrl_core.seeds import SeedTask, load_seed_file, load_seeds
from knowrl_core.storage.files import sha256_file
from knowrl_core.storage.layout import RunPaths
from knowrl_core.storage.objects import ObjectStore
from knowrl_core.storage.roots import is_url, local_root


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run gets from outside its directory."""

    seeds: tuple[SeedTask, ...]
    probe: tuple[SeedTask, ...]
    prompts: Prompts
    model: ResolvedModel
    pins: dict[str, str]
    """sha256 of what all history depends on."""


def prepare(config: Config) -> Inputs:
    """Load and check seeds, probe, prompts, views and model; nothing is created but the model cache.

    Raises:
        InputError: Something that the user gave is wrong.
    """
    files = [seed_path(*item) for item in _seed_files(config)]
    stamp = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists())
    return _prepare(config.model_dump_json(), stamp)


def check_engine(config: Config) -> None:
    """Refuse an engine that cannot start.

    Raises:
        InputError: The interpreter of the vLLM environment is not there.
    """
    vllm = config.engine.vllm
    python = expanded(vllm.python)
    if config.engine.kind == "vllm" and not vllm.urls and not os.access(python, os.X_OK):
        raise InputError(
            f"engine.vllm.python: got {vllm.python}, expected the interpreter of an environment that holds vLLM",
            hint="`make vllm` builds .venv-vllm/bin/python; relative paths start at the current folder. Or name "
            "servers that run already in engine.vllm.urls.",
        )


@lru_cache(maxsize=1)
def _prepare(config_json: str, _stamp: tuple[tuple[int, int], ...]) -> Inputs:
    # Cached, since the command line checks before Prefect starts and the flow checks again.
    config = Config.model_validate_json(config_json)
    check_root(config.run.root)
    check_views(config.verdict.views)
    if config.warmup.views:
        check_views(config.warmup.views, field="warmup.views")
    if config.warmup.epochs and not config.warmup.share:
        raise InputError(
            "warmup.share is 0.0 and warmup.epochs is above 0, expected a share above 0",
            hint="Set warmup.share to 1 for all seeds, or warmup.epochs to 0 for no warm-up.",
        )
    check_engine(config)
    if config.rl.trainer == "deepspeed":
        check_deepspeed(config.rl)
    feasible, infeasible, probe_path = (seed_path(*item) for item in _seed_files(config))
    seeds = load_seeds(feasible, infeasible)
    for label in (FEASIBLE, INFEASIBLE):
        count = sum(seed.label == label for seed in seeds)
        if count < config.introspection.shots:
            raise InputError(
                f"got {count} {label} seeds, expected at least introspection.shots ({config.introspection.shots})",
                hint="Add seeds, or lower introspection.shots.",
            )
    probe = load_seed_file(probe_path)
    for label in (FEASIBLE, INFEASIBLE):
        if not any(task.label == label for task in probe):
            raise InputError(f"{probe_path}: got no {label} task, expected both labels in the probe")
    overlap = {seed.task.casefold() for seed in seeds} & {task.task.casefold() for task in probe}
    if overlap:
        raise InputError(
            f"{probe_path}: {len(overlap)} of its tasks are seeds, too, for example {sorted(overlap)[0][:80]!r}",
            hint="The probe measures, so nothing in it may be trained on or shown to the model.",
        )
    prompts = load_prompts(config.prompts)
    if config.evaluation.benchmarks:
        from tasks.labelled_sets import configured_sets  # noqa: PLC0415 - scikit-learn is slow; it comes last

        configured_sets(config)
    model = resolve_model(config.model)
    pins = {
        "model.path": model.sha256,
        "files.feasible": sha256_file(feasible),
        "files.infeasible": sha256_file(infeasible),
        "files.probe": sha256_file(probe_path),
    }
    return Inputs(tuple(seeds), tuple(probe), prompts, model, pins)


def _seed_files(config: Config) -> tuple[tuple[str, str], ...]:
    files = config.files
    return (files.feasible, "feasible.jsonl"), (files.infeasible, "infeasible.jsonl"), (files.probe, "probe.jsonl")


def seed_path(setting: str, shipped_name: str) -> Path:
    """The file that a ``files.*`` field means."""
    return shipped("seeds", shipped_name) if setting == "builtin" else expanded(setting)


def check_root(place: str) -> None:
    """Make sure that the artifact root exists or can be made, and can be written to, leaving no trace.

    Args:
        place: A folder or a URL.

    Raises:
        InputError: It is not so.
    """
    root = local_root(place)
    if is_url(place):
        ObjectStore(place).check()
    nearest = root
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(
            f"run.root: {str(root)!r} cannot be written to: {nearest}: {error.strerror or error}",
            hint="Choose another folder with --set run.root=FOLDER.",
        ) from None


def check_folder(paths: RunPaths) -> None:
    """Refuse a folder that holds something else than a run.

    Raises:
        InputError: It does.
    """
    if paths.folder.exists() and not paths.folder.is_dir():
        raise InputError(
            f"{paths.folder} is a file, expected a run or nothing",
            hint="Choose another --set run.name=NAME or run.root.",
        )
    names: Iterable[str] = ()
    if paths.remote is not None:
        names = () if paths.remote.exists() else paths.remote.store.find()
    elif paths.folder.exists() and not paths.run_file.exists():
        names = [path.name for path in paths.folder.iterdir()]
    # An attempt that was killed between making the folder and writing run.json leaves only its lock, and what was to
    # become the lock's record, whose name has one more dot.
    foreign = [name for name in names if not name.startswith((".lock", "..lock", ".run.json"))]
    if foreign:
        raise InputError(
            f"{paths.shown} holds {foreign[0]!r} and no run.json, expected a run or nothing",
            hint=f"`knowrl remove {paths.shown}` finishes a removal that was cut short."
            if paths.remote is not None and paths.remote.has_remains()
            else "Choose another --set run.name=NAME or run.root.",
        )
