"""Measure a model without a run, as flow ``knowrl``, deployed as ``knowrl/evaluate``."""

import json
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import Field

from knowrl_core.config import DEFAULT_PROFILE, Config, anchored, build_config, deep_merge, load_config
from knowrl_core.evaluation import read_baseline
from tasks.evaluate import evaluate_model
from tasks.open_sets import open_sets
from tasks.progress import current_reporter


@flow(name="knowrl", flow_run_name="evaluate {model}", persist_result=False)
def evaluate(  # noqa: PLR0917 - a flow's parameters have names for whoever calls it
    model: str,
    benchmarks: list[str] | None = None,
    paths: list[str] | None = None,
    limit: Annotated[int, Field(ge=0)] | None = None,
    baseline: str | None = None,
    out: str | None = None,
    profile: str | None = None,
    config: Config | None = None,
) -> dict[str, dict[str, float | None]]:
    """Judge labelled tasks with a model and compare with the truth, as stage evaluate does.

    Args:
        model: Folder (such as a checkpoint of a run), Hub id or alias of a causal language model.
        benchmarks: The labelled sets; empty: the probe.
        paths: File or folder of each benchmark that is not built in, in their order, or one folder for all.
        limit: Most tasks a set; 0 means all.
        baseline: Predictions of another model (an earlier `out`) to compare with.
        out: Parquet file that takes the predictions.
        profile: Profile or path to a YAML file; empty: cpu.
        config: Fields that differ from the profile, such as {"verdict": {"mode": "free"}}.
    """
    given = config.model_dump(mode="json", exclude_unset=True) if config is not None else {}
    data = deep_merge(load_config(profile or DEFAULT_PROFILE).model_dump(mode="json"), given)
    resolved = anchored(
        build_config(deep_merge(data, {"model": {"path": model}}), source="the profile with the flow's parameters")
    )
    sets = open_sets(resolved, benchmarks or [], paths or [], limit)
    known = read_baseline(Path(baseline).expanduser()) if baseline else {}
    found = evaluate_model(
        resolved, sets, current_reporter(), out=Path(out).expanduser() if out else None, baselines=known
    )
    measured = {item.dataset: {row.metric: row.value for row in item.metrics} for item in found}
    _publish(model, measured)
    return measured


def _publish(model: str, measured: dict[str, dict[str, Any]]) -> None:
    """Show the measurements in the Prefect UI."""
    rows = [
        {"set": name, **{metric: value for metric, value in values.items() if value is not None}}
        for name, values in measured.items()
    ]
    try:
        create_table_artifact(rows, key="knowrl-evaluation", description=f"Measurements of {json.dumps(model[:200])}")
    except Exception as error:
        current_reporter().warning(f"Prefect does not take the measurements: {type(error).__name__}: {error}")
