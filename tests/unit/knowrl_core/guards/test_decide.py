import json

import pytest
from pydantic import ValidationError

from knowrl_core.config.guards import GuardsConfig
from knowrl_core.errors import ArtifactError
from knowrl_core.guards import Decision, Point, decide, point_of
from knowrl_core.storage.schemas import GuardRecord


class Everything:
    def __contains__(self, item):
        return True


def firing(action, guard="label_balance"):
    return GuardRecord(1, guard, "probe/called_feasible", 0.98, 0.95, action, "probe/called_feasible is 0.98")


class Chain:
    """Iterations one after another, each with its balanced accuracy and the actions that fire in it."""

    def __init__(self, **config):
        self.config = GuardsConfig.model_validate(config)
        self.decision = None
        self.iteration = -1

    def next(self, truth, *actions, available=None):
        self.iteration += 1
        self.decision = decide(
            self.config,
            self.decision,
            Point(iteration=self.iteration, balanced_accuracy=truth, reward=None),
            [firing(action) for action in actions],
            available=Everything() if available is None else available,
        )
        return self.decision

    @property
    def lineage(self):
        return [point.iteration for point in self.decision.lineage]


def test_without_a_firing_the_next_iteration_follows():
    chain = Chain()
    for iteration in range(3):
        decision = chain.next(0.5)
        assert (decision.parent, decision.stop, decision.reason) == (iteration, False, None)
    assert chain.lineage == [0, 1, 2]
    assert (decision.learning_rate_factor, decision.rollbacks) == (1.0, 0)


def test_a_warning_changes_nothing():
    chain = Chain()
    chain.next(0.5)
    decision = chain.next(0.4, "warn", "warn")
    assert (decision.parent, decision.stop, decision.reason, decision.rollbacks) == (1, False, None, 0)


def test_stop_is_the_strongest():
    chain = Chain()
    chain.next(0.9)
    decision = chain.next(0.4, "warn", "rollback", "stop")
    assert (decision.parent, decision.stop, decision.rollbacks) == (1, True, 0)
    assert decision.reason == "guard label_balance: probe/called_feasible is 0.98"


def test_rollback_twice_and_going_on_in_between():
    chain = Chain(learning_rate_factor=0.5)
    for truth in (0.5, 0.8, 0.7):
        chain.next(truth)
    decision = chain.next(0.6, "rollback")
    assert (decision.parent, decision.learning_rate_factor, decision.rollbacks) == (1, 0.5, 1)
    assert not decision.stop
    assert "back to iteration 1" in decision.reason
    assert chain.lineage == [0, 1]
    decision = chain.next(0.85)
    assert (decision.parent, decision.reason) == (4, None)
    assert chain.lineage == [0, 1, 4]
    decision = chain.next(0.6, "rollback")
    assert (decision.parent, decision.learning_rate_factor, decision.rollbacks) == (4, 0.25, 2)
    assert chain.lineage == [0, 1, 4]


def test_the_earliest_of_equals_is_the_best_and_it_may_be_the_initial_model():
    chain = Chain()
    for truth in (0.8, 0.8, 0.7):
        chain.next(truth)
    assert chain.next(0.8, "rollback").parent == 0
    assert chain.lineage == [0]


def test_an_iteration_that_fired_is_never_gone_back_to_however_well_it_scores():
    """From chance, a model that always says the same looks like the best so far."""
    chain = Chain()
    chain.next(0.47)
    decision = chain.next(0.5, "rollback")
    assert (decision.parent, decision.learning_rate_factor) == (0, 0.5)


def test_without_any_score_it_goes_back_to_the_initial_model():
    chain = Chain()
    chain.next(None)
    chain.next(None)
    assert chain.next(None, "rollback").parent == 0


def test_what_was_pruned_cannot_be_gone_back_to():
    chain = Chain()
    for truth in (0.5, 0.9, 0.7, 0.6):
        chain.next(truth)
    assert chain.next(0.4, "rollback", available={0, 2, 3, 4}).parent == 2
    assert chain.lineage == [0, 1, 2]


def test_after_rollback_end():
    chain = Chain(after_rollback="end")
    chain.next(0.5)
    chain.next(0.8)
    decision = chain.next(0.5, "rollback")
    assert (decision.parent, decision.stop, decision.rollbacks, decision.learning_rate_factor) == (1, True, 1, 0.5)
    assert "guards.after_rollback" in decision.reason


def test_one_rollback_too_many_ends_the_run():
    chain = Chain(max_rollbacks=1)
    chain.next(0.8)
    assert not chain.next(0.5, "rollback").stop
    decision = chain.next(0.5, "rollback")
    assert (decision.parent, decision.stop, decision.rollbacks) == (0, True, 2)
    assert "guards.max_rollbacks" in decision.reason


def test_no_rollback_allowed():
    chain = Chain(max_rollbacks=0)
    chain.next(0.8)
    assert chain.next(0.5, "rollback").stop


def test_the_file_is_canonical_and_comes_back(tmp_path):
    chain = Chain()
    chain.next(0.1 + 0.2)
    text = chain.next(None, "rollback").text()
    path = tmp_path / "decision.json"
    path.write_text(text)
    assert Decision.read(path) == chain.decision
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"parent": 1}'])
def test_a_broken_file_is_named(tmp_path, text):
    path = tmp_path / "decision.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"decision\.json: not a decision") as caught:
        Decision.read(path)
    assert "--repair" in caught.value.hint
    with pytest.raises(ArtifactError, match="cannot be read"):
        Decision.read(tmp_path / "absent.json")


def test_points():
    metrics = {"probe/balanced_accuracy": 0.7, "reward/candidates": 0.9}
    assert point_of(2, metrics, warmup=False) == Point(iteration=2, balanced_accuracy=0.7, reward=0.9)
    assert point_of(1, metrics, warmup=True).reward is None
    assert point_of(0, {}, warmup=False) == Point(iteration=0, balanced_accuracy=None, reward=None)
    with pytest.raises(ValidationError):
        Point(iteration=0, balanced_accuracy=float("nan"), reward=None)
