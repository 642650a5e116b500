"""Compare two models on the same tasks, task by task.

Paired tests see differences that two separate intervals hide, since both models meet the same easy and hard tasks.

- *McNemar, exact*: of the tasks on which exactly one of them is right, how many are the model's? Without a difference,
  half of them (binomial test, two-sided). McNemar: Note on the Sampling Error of the Difference Between Correlated
  Proportions or Percentages, Psychometrika 12, 1947.
- *Paired bootstrap*: difference of a metric in resamples that hold the same tasks for both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from knowrl_core.errors import InputError
from knowrl_core.evaluation.bootstrap import percentile_interval, resample
from knowrl_core.evaluation.metrics import metric_values
from knowrl_core.evaluation.outcomes import Floats, Outcomes
from knowrl_core.evaluation.resampled import ResampledMetrics
from knowrl_core.storage.schemas import PredictionRecord

_HINT = "Give a file that `knowrl evaluate --out FILE` wrote for the same benchmark with the same --limit and --seed."


class BaselineRow(NamedTuple):
    """What the baseline said about one task."""

    label: str
    predicted: str
    score: float | None


Baseline = Mapping[str, BaselineRow]
"""A baseline's predictions on one set, by task id."""


MORE: Final = ("balanced_accuracy", "auroc")
"""What is compared beside F1."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of the model minus that of the baseline.

    Attributes:
        metric: Its name.
        baseline: The baseline's value.
        difference: The model's minus it.
        lower: Lower end of the 95 % interval of the difference; None without resamples, or where undefined in one.
        upper: Upper end of it.
    """

    metric: str
    baseline: float
    difference: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model against a baseline.

    Attributes:
        n: Tasks compared.
        only_model: Tasks that only the model predicts right.
        only_baseline: Tasks that only the baseline predicts right.
        mcnemar_p: p-value of the exact McNemar test.
        f1_baseline: The baseline's F1; None where undefined.
        f1_difference: F1 of the model minus that of the baseline; None where undefined.
        lower: Lower end of its 95 % interval.
        upper: Upper end of it.
        more: Other metrics than F1, as far as they are defined for both.
    """

    n: int
    only_model: int
    only_baseline: int
    mcnemar_p: float
    f1_baseline: float | None
    f1_difference: float | None
    lower: float | None
    upper: float | None
    more: tuple[Difference, ...]


def read_baseline(path: Path) -> dict[str, Baseline]:
    """Read a prediction file; returns its rows by set and task.

    Raises:
        InputError: It is no prediction file, or holds a task twice.
    """
    columns = ["dataset", "task_id", "label", "predicted", "score"]
    try:
        table = pq.read_table(path, columns=columns)
        if table.column_names != columns:
            raise KeyError(f"got columns {table.column_names}, expected {columns}")
        rows = table.to_pylist()
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(f"baseline {str(path)!r}: no prediction file: {error}", hint=_HINT) from None
    found: dict[str, dict[str, BaselineRow]] = {}
    for row in rows:
        own = found.setdefault(row["dataset"], {})
        if row["task_id"] in own:
            raise InputError(
                f"baseline {str(path)!r}: task {row['task_id']!r} stands twice, expected it once", hint=_HINT
            )
        own[row["task_id"]] = BaselineRow(row["label"], row["predicted"], row["score"])
    return dict(found)


def baseline_prediction(baseline: Baseline, prediction: PredictionRecord) -> PredictionRecord:
    """The baseline's prediction on the task of a prediction.

    Raises:
        InputError: It has none, or had another label for it.
    """
    row = baseline.get(prediction.task_id)
    place = f"baseline: {prediction.dataset}: task {prediction.task_id!r}"
    if row is None:
        raise InputError(f"{place}: missing, expected every task that is evaluated", hint=_HINT)
    if row.label != prediction.label:
        raise InputError(f"{place}: got label {row.label!r}, expected {prediction.label!r} as in this set", hint=_HINT)
    values: dict[str, Any] = {name: getattr(prediction, name) for name in PredictionRecord.__dataclass_fields__}
    return PredictionRecord(**values | {"predicted": row.predicted, "score": row.score})


def compare(model: Outcomes, baseline: Outcomes, *, resamples: int, seed: int, name: str) -> Comparison:
    """Compare two models' outcomes on the same tasks in the same order.

    Args:
        model: The model's.
        baseline: The baseline's.
        resamples: Bootstrap resamples; 0 gives no interval.
        seed: Seed of the resampling.
        name: Name of the set in the random streams.
    """
    right, before = model.called == model.truth, baseline.called == baseline.truth
    only_model, only_baseline = int((right & ~before).sum()), int((before & ~right).sum())
    ours, theirs = metric_values(model), metric_values(baseline)
    ends = difference_intervals(model, baseline, ("f1", *MORE), resamples=resamples, seed=seed, name=name)
    found: dict[str, Difference] = {}
    for metric, (lower, upper) in ends.items():
        value, reference = ours[metric], theirs[metric]
        if value is not None and reference is not None:
            found[metric] = Difference(metric, reference, value - reference, lower, upper)
    f1 = found.pop("f1", None)
    return Comparison(
        n=model.size,
        only_model=only_model,
        only_baseline=only_baseline,
        mcnemar_p=mcnemar(only_model, only_baseline),
        f1_baseline=theirs["f1"],
        f1_difference=f1.difference if f1 else None,
        lower=f1.lower if f1 else None,
        upper=f1.upper if f1 else None,
        more=tuple(found.values()),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of the exact McNemar test; 1 if no task tells the two apart."""
    apart, fewer = only_first + only_second, min(only_first, only_second)
    ways, tail = 1, 1  # binomial coefficients and their sum, as whole numbers
    for number in range(fewer):
        ways = ways * (apart - number) // (number + 1)
        tail += ways
    return min(1.0, float(Fraction(2 * tail, 2**apart)))


def difference_intervals(
    model: Outcomes, baseline: Outcomes, metrics: Sequence[str], *, resamples: int, seed: int, name: str
) -> dict[str, tuple[float, float] | tuple[None, None]]:
    """95 % intervals of the model's metrics minus the baseline's, in resamples that hold the same tasks for both.

    Args:
        model: The model's outcomes.
        baseline: The baseline's, on the same tasks in the same order.
        metrics: Names of the metrics.
        resamples: Bootstrap resamples; 0 gives no interval.
        seed: Seed of the resampling.
        name: Name of the set in the random streams.

    Returns:
        Both ends for each metric; None where it is undefined in a resample.
    """
    if not resamples:
        return dict.fromkeys(metrics, (None, None))
    ours, theirs = ResampledMetrics(model), ResampledMetrics(baseline)
    blocks: dict[str, list[Floats]] = {metric: [] for metric in metrics}
    for weights in resample(model, resamples, seed=seed, name=name):
        mine, others = ours(weights), theirs(weights)
        for metric, parts in blocks.items():
            parts.append(mine[metric] - others[metric])
    values = {metric: np.concatenate(parts) for metric, parts in blocks.items()}
    return {
        metric: (None, None) if np.isnan(drawn).any() else percentile_interval(drawn)
        for metric, drawn in values.items()
    }
