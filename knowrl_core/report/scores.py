"""Truth by iteration: what the model scored on each labelled set, with intervals and controls."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from knowrl_core.evaluation.controls import CONSTANTS
from knowrl_core.evaluation.metrics import MODEL
from knowrl_core.report.read import StoredRun
from knowrl_core.storage.layout import EVALUATE, EXTRINSIC_TABLE, StageKey
from knowrl_core.storage.schemas import MetricRecord

BALANCED: Final = "balanced_accuracy"
ACCURACY: Final = "accuracy"
PROBE: Final = "probe"

Values = list[float | None]
"""One value an iteration of the run; None where it was not measured or is undefined."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric by iteration.

    Attributes:
        values: Its value.
        lower: Lower end of the 95 % interval; None without one.
        upper: Upper end of it.
    """

    values: Values
    lower: Values
    upper: Values


@dataclass(frozen=True, slots=True)
class SetScores:
    """A labelled set.

    Attributes:
        name: Its name.
        tasks: Tasks evaluated, at the last iteration that was.
        headline: Metric that it is judged by: balanced accuracy, or accuracy where there is one label only.
        metrics: The model's metrics.
        controls: The controls' headline metric at the last evaluated iteration, by name of the control.
    """

    name: str
    tasks: int
    headline: str
    metrics: dict[str, Curve]
    controls: dict[str, float]

    @property
    def head(self) -> Curve:
        """The headline metric by iteration."""
        return self.metrics[self.headline]

    @property
    def best_constant(self) -> float | None:
        """What the better of the answers that never change scored; None where no such control was measured."""
        return max((self.controls[name] for name in CONSTANTS if name in self.controls), default=None)


def set_scores(run: StoredRun, iterations: Sequence[int]) -> list[SetScores]:
    """The labelled sets of a run, the probe first, others in the order in which they were first measured.

    Args:
        run: The run.
        iterations: Its iterations.
    """
    found: dict[str, dict[int, list[MetricRecord]]] = {}
    for iteration in iterations:
        key = StageKey(iteration, EVALUATE)
        for row in run.table(key, EXTRINSIC_TABLE, MetricRecord) if key in run.history else ():
            found.setdefault(row.dataset, {}).setdefault(iteration, []).append(row)
    names = sorted(found, key=lambda name: name != PROBE)
    return [_scores(name, found[name], iterations) for name in names]


def _scores(name: str, rows: dict[int, list[MetricRecord]], iterations: Sequence[int]) -> SetScores:
    own = {at: {row.metric: row for row in part if row.predictor == MODEL} for at, part in rows.items()}
    last = rows[max(rows)]
    metrics = {}
    for metric in dict.fromkeys(row.metric for part in rows.values() for row in part if row.predictor == MODEL):
        line = [own.get(at, {}).get(metric) for at in iterations]
        metrics[metric] = Curve(
            [row.value if row else None for row in line],
            [row.lower if row else None for row in line],
            [row.upper if row else None for row in line],
        )
    both = BALANCED in metrics and any(value is not None for value in metrics[BALANCED].values)
    headline = BALANCED if both or ACCURACY not in metrics else ACCURACY
    metrics.setdefault(headline, _nothing(len(iterations)))
    controls = {
        row.predictor: row.value
        for row in last
        if row.predictor != MODEL and row.metric == headline and row.value is not None
    }
    tasks = Counter(row.n for row in last if row.metric == ACCURACY).most_common(1)
    return SetScores(name, tasks[0][0] if tasks else 0, headline, metrics, controls)


def _nothing(iterations: int) -> Curve:
    return Curve([None] * iterations, [None] * iterations, [None] * iterations)
