"""Measure a model on one labelled set: judge its tasks chunk by chunk, write predictions, compute every number."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Final

from knowrl_core.evaluation.benchmarks.model import BenchmarkTask, LeftOuts
from knowrl_core.evaluation.compare import Baseline, Comparison, baseline_prediction, compare
from knowrl_core.evaluation.controls import Wording, control_records
from knowrl_core.evaluation.metrics import metric_records
from knowrl_core.evaluation.open_set import OpenSet
from knowrl_core.evaluation.outcomes import OutcomeCollector
from knowrl_core.evaluation.sink import PredictionSink
from knowrl_core.labels import UNPARSEABLE
from knowrl_core.storage.schemas import MetricRecord, PredictionRecord

CHUNK: Final = 256
"""Tasks judged in one go: enough to fill batches of similar length, few enough to keep memory flat."""

Judge = Callable[[str, Sequence[BenchmarkTask]], list[PredictionRecord]]
"""Predicts a chunk of tasks of the set that is named."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was measured on one set.

    Attributes:
        dataset: Name of the set.
        labels: Tasks evaluated, by label.
        metrics: The model's metrics.
        controls: The controls' metrics.
        comparison: Against a baseline, if one was given.
        left_out: Rows of the files that are no tasks of the set, by reason.
        available: Tasks of the whole set; more than were evaluated where a limit was given.
        seconds: Time of judging.
    """

    dataset: str
    labels: Counter[str]
    metrics: list[MetricRecord]
    controls: list[MetricRecord]
    comparison: Comparison | None
    left_out: LeftOuts
    available: int
    seconds: float

    @property
    def size(self) -> int:
        """Tasks evaluated."""
        return self.labels.total()

    @property
    def records(self) -> list[MetricRecord]:
        """Metrics of the model and of the controls."""
        return [*self.metrics, *self.controls]


def assess(
    item: OpenSet,
    judge: Judge,
    *,
    sink: PredictionSink,
    resamples: int,
    seed: int,
    baseline: Baseline | None = None,
) -> Assessment:
    """Measure a model on one set.

    Args:
        item: The set.
        judge: The model.
        sink: Takes the predictions.
        resamples: Bootstrap resamples for the intervals; 0 means none.
        seed: Seed of folds and resampling.
        baseline: Another model's predictions on the same tasks.

    Raises:
        InputError: The baseline lacks a task.
    """
    ours, theirs, wording = OutcomeCollector(), OutcomeCollector(), Wording(item.wording)
    labels: Counter[str] = Counter()
    started = monotonic()
    for chunk in chunks(item.tasks, CHUNK):
        rows = judge(item.name, chunk)
        for row in rows:
            labels[row.label] += 1
            ours.add(row)
            wording.add(row)
            if baseline is not None:
                theirs.add(baseline_prediction(baseline, row))
        sink.write(rows)
    seconds = monotonic() - started
    outcomes = ours.outcomes()
    compared = None
    if baseline is not None:
        compared = compare(outcomes, theirs.outcomes(), resamples=resamples, seed=seed, name=item.name)
    return Assessment(
        dataset=item.name,
        labels=labels,
        metrics=metric_records(item.name, outcomes, resamples=resamples, seed=seed),
        controls=control_records(item.name, outcomes, wording, resamples=resamples, seed=seed),
        comparison=compared,
        left_out=item.left_out,
        available=item.available,
        seconds=seconds,
    )


def controls_only(item: OpenSet, *, resamples: int, seed: int) -> Assessment:
    """Compute the controls of a set without a model; all else is empty."""
    outcomes, wording = OutcomeCollector(), Wording(item.wording)
    labels: Counter[str] = Counter()
    for task in item.tasks:
        row = PredictionRecord(item.name, task.id, "", task.label, UNPARSEABLE, None, 0, 0, 0, "", "", pair=task.pair)
        labels[task.label] += 1
        outcomes.add(row)
        wording.add(row)
    controls = control_records(item.name, outcomes.outcomes(), wording, resamples=resamples, seed=seed)
    return Assessment(item.name, labels, [], controls, None, item.left_out, item.available, 0.0)


def chunks(tasks: Iterable[BenchmarkTask], size: int) -> Iterator[list[BenchmarkTask]]:
    """Split tasks into lists of at most ``size``."""
    rest = iter(tasks)
    while chunk := list(islice(rest, size)):
        yield chunk
