"""Measure a model without a run, as flow ``knowrl``, deployed as ``knowrl/evaluate``."""

import json
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.artifacts import publish_table
from flows.parameters import fields_of, overlaid, profile_of
from flows.remote import check_out, check_places
from knowrl_core.config import Config, deep_merge
from knowrl_core.places import expanded
from tasks.evaluate import evaluate_model
from tasks.open_sets import open_baselines, open_sets
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
        out: Parquet file that takes the predictions; a worker writes it in the artifact root only, outside of all runs.
        profile: Profile or path to a YAML file; empty: cpu.
        config: Fields that differ from the profile, such as {"verdict": {"mode": "free"}}.
    """
    fields = deep_merge(fields_of(config), {"model": {"path": model}})
    resolved = overlaid(profile_of(profile), fields, "the profile with the flow's parameters")
    check_places({"baseline": baseline, **{f"paths[{index}]": path for index, path in enumerate(paths or [])}})
    check_out(out)
    sets = open_sets(resolved, benchmarks or [], paths or [], limit)
    known = open_baselines(expanded(baseline), sets) if baseline else {}
    found = evaluate_model(resolved, sets, current_reporter(), out=expanded(out) if out else None, baselines=known)
    measured = {item.dataset: {row.metric: row.value for row in item.metrics} for item in found}
    rows = [
        {"set": name, **{metric: value for metric, value in values.items() if value is not None}}
        for name, values in measured.items()
    ]
    publish_table(rows, "knowrl-evaluation", f"Measurements of {json.dumps(model[:200])}", current_reporter())
    return measured
