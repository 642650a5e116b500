"""The controls."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from knowrl_core.evaluation.assess import controls_only
from knowrl_core.evaluation.benchmarks import BenchmarkTask, find_benchmark
from knowrl_core.evaluation.controls import tfidf_scores
from knowrl_core.evaluation.open_set import OpenSet, open_set
from tests.unit.knowrl_core.evaluation.conftest import make_outcomes

Y, N = "feasible", "infeasible"


def values(assessment):
    return {(row.predictor, row.metric): row.value for row in assessment.controls}


def a_set(tasks):
    return OpenSet("s", tasks, len(tasks), len(tasks), {}, tasks)


def test_constant_answers():
    tasks = [BenchmarkTask(str(n), f"task {n}", N if n < 3 else Y) for n in range(10)]
    found = values(controls_only(a_set(tasks), resamples=50, seed=0))
    assert found["always_infeasible", "f1"] == pytest.approx(f1_score([1] * 3 + [0] * 7, [1] * 10)) == 6 / 13
    assert found["always_infeasible", "over_refusal"] == found["always_feasible", "called_feasible"] == 1
    assert (found["always_feasible", "f1"], found["always_feasible", "accuracy"]) == (0, 0.7)
    assert ("tfidf", "f1") not in found  # fewer tasks of a label than folds


def test_wording_that_gives_the_label_away():
    texts = [f"{'please call' if n % 2 else 'write about'} number {n}" for n in range(60)]
    truth = np.array([bool(n % 2) for n in range(60)])
    scores = tfidf_scores(texts, truth, np.arange(60), seed=0)
    assert ((scores > 0.5) == truth).all()
    assert (scores == tfidf_scores(texts, truth, np.arange(60), seed=0)).all()


def test_signs_and_one_letter_words_are_cues():
    texts = [f"task {n} {'? I' if n % 2 else '! a'}" for n in range(60)]
    truth = np.array([bool(n % 2) for n in range(60)])
    assert ((tfidf_scores(texts, truth, np.arange(60), seed=0) > 0.5) == truth).all()


def test_twins_do_not_help_each_other():
    """Twins of the same words and opposite labels: with pairs kept together the words tell nothing."""
    texts = [f"word{n // 2} other{n // 2} things" for n in range(100)]
    truth = np.array([bool(n % 2) for n in range(100)])
    together = tfidf_scores(texts, truth, np.arange(100) // 2, seed=0)
    assert (np.abs(together - 0.5) < 0.05).all()
    apart = tfidf_scores(texts, truth, np.arange(100), seed=0) > 0.5
    assert (apart == truth).mean() < 0.4  # a twin in the training folds says the opposite


def test_too_few_tasks_or_groups_for_the_folds():
    truth = np.array([True, False] * 4)
    assert tfidf_scores(["x"] * 8, truth, np.arange(8), seed=0) is None
    truth = np.array([True, False] * 10)
    assert tfidf_scores(["x"] * 20, truth, np.arange(20) // 10, seed=0) is None
    assert tfidf_scores([], np.array([], dtype=bool), np.array([]), seed=0) is None


def test_under_a_limit_the_wording_of_the_whole_set_is_known():
    whole = [BenchmarkTask(str(n), f"{'call' if n % 2 else 'write'} {n}", N if n % 2 else Y) for n in range(200)]
    part = OpenSet("s", whole[:6], 6, 200, {}, whole)
    found = {(row.predictor, row.metric): row for row in controls_only(part, resamples=0, seed=0).controls}
    assert (found["tfidf", "f1"].value, found["tfidf", "f1"].n) == (1, 6)


def test_surface_cues_do_not_suffice_on_the_paired_set():
    found = values(controls_only(open_set(find_benchmark("paired"), None), resamples=0, seed=0))
    assert found["tfidf", "balanced_accuracy"] <= 0.6
    assert found["always_infeasible", "pair_accuracy"] == found["always_feasible", "pair_accuracy"] == 0


def test_constant_keeps_truth_and_units():
    outcomes = make_outcomes([1, 0], [None, 1], unit=[0, 0])
    assert (outcomes.constant(True).truth == outcomes.truth).all()
    assert (outcomes.constant(False).unit == outcomes.unit).all()
