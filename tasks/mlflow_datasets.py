"""What an iteration learned from and was measured on, as datasets of its MLflow run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow
import pyarrow.parquet
from mlflow.entities import Dataset, DatasetInput, InputTag

from knowrl_core.config import Config
from knowrl_core.storage.layout import CONSENSUS, EVALUATE, GENERATE, UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import FileRef, Manifest
from knowrl_core.storage.verify import EXTERNAL
from tasks.prepare import seed_path

DIGEST_LENGTH: Final = 36
"""Characters that MLflow takes: the first of the sha256. The source has all of it."""

CONTEXT: Final = "mlflow.data.context"
_SEEDS: Final = {f"{EXTERNAL}files.feasible": "feasible seeds", f"{EXTERNAL}files.infeasible": "infeasible seeds"}
_PROBE: Final = f"{EXTERNAL}files.probe"
_BENCHMARKS: Final = f"{EXTERNAL}benchmarks/"
_TYPES: Final = {"string": "string", "int64": "long", "int32": "integer", "double": "double", "bool": "boolean"}


def datasets_of(paths: RunPaths, config: Config, key: StageKey, manifest: Manifest) -> list[DatasetInput]:
    """The datasets that a stage used: few-shot examples, what it trained on, or what it was measured on.

    Args:
        paths: The run.
        config: Its config, which says where files from outside are.
        key: The stage.
        manifest: Its manifest.
    """
    return [
        DatasetInput(
            Dataset(name, ref.sha256[:DIGEST_LENGTH], *_source(paths, config, ref), _schema(paths, ref), _profile(ref)),
            [InputTag(CONTEXT, context)],
        )
        for ref, name, context in _used(key, manifest)
    ]


def is_external(item: DatasetInput) -> bool:
    """Whether a dataset comes from outside of the run, so that all its iterations share it."""
    return bool(json.loads(item.dataset.source)["external"])


def _used(key: StageKey, manifest: Manifest) -> Iterator[tuple[FileRef, str, str]]:
    """File, name and context of each dataset among a stage's inputs. Not all inputs are: some are only kept apart."""
    own = f"/{CONSENSUS}/"
    frozen = f"iterations/{0:03d}/{GENERATE}/candidates.parquet"
    for ref in manifest.inputs:
        if key.stage == GENERATE and ref.path in _SEEDS:
            yield ref, _SEEDS[ref.path], "few-shot"
        elif key.stage == GENERATE and ref.path.endswith(f"{own}pool.parquet"):
            yield ref, "pool", "few-shot"
        elif key.stage == UPDATE and ref.path in _SEEDS:  # a warm-up
            yield ref, _SEEDS[ref.path], "train"
        elif key.stage == UPDATE and ref.path.endswith(f"{own}consensus.parquet"):
            yield ref, "consensus tasks", "train"
        elif key.stage == UPDATE and ref.path.endswith(f"{own}anchors.parquet"):
            yield ref, "anchors", "train"
        elif key.stage == EVALUATE and ref.path == _PROBE:
            yield ref, "probe", "eval"
        elif key.stage == EVALUATE and ref.path.startswith(_BENCHMARKS):
            yield ref, ref.path.removeprefix(_BENCHMARKS).split("/")[0], "eval"
        elif key.stage == EVALUATE and ref.path == frozen:
            yield ref, "frozen tasks", "eval"


def _source(paths: RunPaths, config: Config, ref: FileRef) -> tuple[str, str]:
    """Kind and JSON of a dataset's source, as MLflow's own classes write it, with the whole sha256."""
    files = config.files
    outside = {
        f"{EXTERNAL}files.feasible": (files.feasible, "feasible.jsonl"),
        f"{EXTERNAL}files.infeasible": (files.infeasible, "infeasible.jsonl"),
        _PROBE: (files.probe, "probe.jsonl"),
    }
    kind = "local"
    if ref.path in outside:
        uri = str(seed_path(*outside[ref.path]).absolute())
    elif ref.path.startswith(EXTERNAL):
        uri = ref.path.removeprefix(EXTERNAL)
    else:
        uri, kind = f"{paths.shown}/{ref.path}", "local" if paths.remote is None else "s3"
    return kind, json.dumps({"uri": uri, "sha256": ref.sha256, "external": ref.path.startswith(EXTERNAL)})


def _schema(paths: RunPaths, ref: FileRef) -> str | None:
    """The columns of a table, as MLflow writes them."""
    file: Path = paths.folder / ref.path
    if ref.path.startswith(EXTERNAL) or not file.exists():
        return None
    columns = [
        {"name": field.name, "type": _TYPES.get(str(field.type), "object"), "required": not field.nullable}
        for field in pyarrow.parquet.read_schema(file)
    ]
    return json.dumps({"mlflow_colspec": columns})


def _profile(ref: FileRef) -> str | None:
    return None if ref.rows is None else json.dumps({"num_rows": ref.rows})
