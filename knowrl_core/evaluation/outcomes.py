"""What was said about each task of a set, as arrays: all that metrics and resampling need, some 20 bytes a task."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knowrl_core.labels import FEASIBLE, INFEASIBLE, POSITIVE, UNPARSEABLE
from knowrl_core.storage.schemas import PredictionRecord

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SAID = {FEASIBLE: 0, INFEASIBLE: 1, UNPARSEABLE: 2}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Truth and prediction of each task; the positive class is infeasible.

    A prediction without a decision is counted wrong, never dropped: ``called`` holds the opposite of the truth for
    it, and ``score``, where there is none, the worst: 0 for an infeasible task, 1 for a feasible one.
    """

    truth: Bools
    """Infeasible in truth."""
    said_infeasible: Bools
    said_feasible: Bools
    score: Floats
    """Probability or vote share of infeasible."""
    unit: NDArray[np.int64]
    """What is resampled together: a pair has one number, every other task one of its own; numbers from 0."""

    @property
    def size(self) -> int:
        """Number of tasks."""
        return len(self.truth)

    @property
    def called(self) -> Bools:
        """Called infeasible, with no decision counted wrong."""
        return np.where(self.said_infeasible | self.said_feasible, self.said_infeasible, ~self.truth)

    @property
    def paired(self) -> bool:
        """Whether any unit holds more than one task."""
        return self.size > 0 and int(self.unit.max()) + 1 < self.size

    def constant(self, infeasible: bool, /) -> "Outcomes":
        """The outcomes of a predictor that always gives the same answer."""
        said = np.full(self.size, infeasible)
        return Outcomes(self.truth, said, ~said, said.astype(np.float64), self.unit)


class OutcomeCollector:
    """Gathers outcomes as predictions come."""

    def __init__(self) -> None:
        self._truth, self._said = array("b"), array("b")
        self._score, self._unit = array("d"), array("q")
        self._pairs: dict[str, int] = {}
        self._units = 0

    def add(self, prediction: PredictionRecord) -> None:
        """Add one prediction."""
        truth = prediction.label == POSITIVE
        self._truth.append(truth)
        self._said.append(_SAID[prediction.predicted])
        self._score.append(float(not truth) if prediction.score is None else prediction.score)
        unit = self._pairs.get(prediction.pair) if prediction.pair else None
        if unit is None:
            unit, self._units = self._units, self._units + 1
            if prediction.pair:
                self._pairs[prediction.pair] = unit
        self._unit.append(unit)

    def outcomes(self) -> Outcomes:
        """All outcomes so far."""
        said = np.array(self._said, dtype=np.int8)
        return Outcomes(
            truth=np.array(self._truth, dtype=np.bool_),
            said_infeasible=said == _SAID[INFEASIBLE],
            said_feasible=said == _SAID[FEASIBLE],
            score=np.array(self._score, dtype=np.float64),
            unit=np.array(self._unit, dtype=np.int64),
        )


def outcomes_of(predictions: Iterable[PredictionRecord]) -> Outcomes:
    """The outcomes of predictions, in their order."""
    collector = OutcomeCollector()
    for prediction in predictions:
        collector.add(prediction)
    return collector.outcomes()
