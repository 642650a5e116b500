"""Controls: what a predictor without any knowledge of itself scores on the same tasks.

- ``always_infeasible``, ``always_feasible``: one answer for everything.
- ``tfidf``: how far the wording alone goes. Words, word pairs and signs weighted by TF-IDF (sublinear term frequency),
  logistic regression (L2, C = 10), 5-fold cross-validation; every task is predicted by a model that was fitted on the
  other folds. The twins of a pair stay in one fold. It is *trained on the set itself*, which the model is not: a score
  above it means more than style, one below it does not mean less than style.
"""

import re
from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from knowrl_core.evaluation.benchmarks.model import BenchmarkTask
from knowrl_core.evaluation.metrics import metric_records
from knowrl_core.evaluation.outcomes import Bools, Floats, OutcomeCollector, Outcomes
from knowrl_core.labels import POSITIVE
from knowrl_core.storage.schemas import MetricRecord, PredictionRecord

ALWAYS_INFEASIBLE: Final = "always_infeasible"
ALWAYS_FEASIBLE: Final = "always_feasible"
TFIDF: Final = "tfidf"
CONSTANTS: Final = (ALWAYS_INFEASIBLE, ALWAYS_FEASIBLE)
"""Those that give one answer for everything."""
CONTROLS: Final = (*CONSTANTS, TFIDF)
"""Names of the controls, in the order of the tables."""

FOLDS: Final = 5
_TOKEN: Final = re.compile(r"\w+|[^\w\s]")


class Wording:
    """Gathers the tasks that were evaluated, for the TF-IDF control.

    It is fitted on the folds of the whole set, so that it does not get weaker when only a part is evaluated, and scored
    on the tasks that the model was asked.

    Args:
        tasks: The whole set.
    """

    def __init__(self, tasks: Sequence[BenchmarkTask]) -> None:
        self._tasks = tasks
        self._place = {task.id: place for place, task in enumerate(tasks)}
        self._asked, self._places = OutcomeCollector(), array("q")

    def add(self, row: PredictionRecord) -> None:
        """Note that a task was evaluated; one that the whole set does not hold is left out."""
        place = self._place.get(row.task_id)
        if place is not None:
            self._places.append(place)
            self._asked.add(row)

    def outcomes(self, *, seed: int) -> Outcomes | None:
        """What the control says about the tasks evaluated; None if the set is too small for the folds."""
        units: dict[str, int] = {}
        # A pair's name and a task's id may be the same text.
        unit = [units.setdefault(f"pair {t.pair}" if t.pair else f"task {t.id}", len(units)) for t in self._tasks]
        truth = np.array([task.label == POSITIVE for task in self._tasks], dtype=np.bool_)
        scores = tfidf_scores([task.task for task in self._tasks], truth, np.array(unit, dtype=np.int64), seed=seed)
        if scores is None or not self._places:
            return None
        asked, own = self._asked.outcomes(), scores[np.array(self._places)]
        return Outcomes(asked.truth, own > 0.5, own <= 0.5, own, asked.unit)


def control_records(
    dataset: str, outcomes: Outcomes, wording: Wording, *, resamples: int, seed: int
) -> list[MetricRecord]:
    """Metrics of all controls on the tasks evaluated.

    Args:
        dataset: Name of the set.
        outcomes: Of these tasks; only truth and pairs are used.
        wording: The same tasks for the TF-IDF control; it has no rows if the set is too small for the folds.
        resamples: Bootstrap resamples for the intervals; 0 means none.
        seed: Seed of folds and resampling.
    """
    predicted = {ALWAYS_INFEASIBLE: outcomes.constant(True), ALWAYS_FEASIBLE: outcomes.constant(False)}
    fitted = wording.outcomes(seed=seed)
    if fitted is not None:
        predicted[TFIDF] = fitted
    return [
        record
        for name, own in predicted.items()
        for record in metric_records(dataset, own, predictor=name, resamples=resamples, seed=seed)
    ]


def tfidf_scores(texts: Sequence[str], truth: Bools, unit: Any, *, seed: int) -> Floats | None:
    """Out-of-fold probability of infeasible for each text.

    Args:
        texts: The tasks.
        truth: Infeasible in truth. Shape (tasks,).
        unit: Tasks of one unit stay in one fold. Shape (tasks,).
        seed: Seed of the folds.

    Returns:
        Shape (tasks,); None if a label has fewer tasks than there are folds.
    """
    if not len(truth) or min(truth.sum(), (~truth).sum()) < FOLDS or len(set(unit.tolist())) < FOLDS:
        return None
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # as in _classifier: slow to import

    x = np.array(texts, dtype=object)
    # The grouped splitter looks for the best fold group by group; without pairs that is time for nothing.
    grouped = len(set(unit.tolist())) < len(unit)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(
        n_splits=FOLDS, shuffle=True, random_state=seed % 2**32
    )
    scores = np.empty(len(truth))
    for train, test in splitter.split(x, truth, unit if grouped else None):
        if len(set(truth[train].tolist())) < 2:  # one large group took a label along
            return None
        scores[test] = _classifier().fit(x[train], truth[train]).predict_proba(x[test])[:, 1]
    return scores


def _classifier() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # One-letter words and signs are cues, too ("I", "?"), so they are kept, unlike by default. liblinear: short rows
    # are no work for BLAS threads, and its result does not depend on their number.
    words = TfidfVectorizer(ngram_range=(1, 2), tokenizer=_TOKEN.findall, token_pattern=None, sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(solver="liblinear", C=10.0))
