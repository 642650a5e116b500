import pytest

from knowrl_core.config.guards import GuardsConfig
from knowrl_core.guards import Point, active, ask

QUIET = {
    "probe/called_feasible": 0.5,
    "probe/verdict_entropy": 0.4,
    "probe/balanced_accuracy": 0.8,
    "reward/candidates": 0.8,
    "kl/end": 0.1,
    "grad_norm/max": 5.0,
}


def points(*values):
    """A lineage from (balanced accuracy, reward) of each iteration."""
    return [Point(iteration=i, balanced_accuracy=truth, reward=reward) for i, (truth, reward) in enumerate(values)]


def config(**guards):
    return GuardsConfig.model_validate(guards)


def fired(now, lineage=(), guards=None, iteration=5):
    firings = ask(guards or config(), iteration, {**QUIET, **now}, lineage)
    assert all(item.iteration == iteration for item in firings)
    return [item.guard for item in firings]


def test_a_healthy_iteration_fires_nothing():
    assert fired({}, points((0.5, None), (0.8, 0.8))) == []


@pytest.mark.parametrize(
    ("metric", "quiet", "loud", "guard", "bound"),
    [
        ("probe/called_feasible", 0.05, 0.0499, "label_balance", 0.05),
        ("probe/called_feasible", 0.95, 0.9501, "label_balance", 0.95),
        ("probe/called_feasible", 0.5, 0.0, "label_balance", 0.05),
        ("probe/verdict_entropy", 0.02, 0.0199, "verdict_entropy", 0.02),
        ("kl/end", 1.0, 1.0001, "kl", 1.0),
        ("grad_norm/max", 1000.0, 1000.1, "gradient_norm", 1000.0),
    ],
)
def test_bounds(metric, quiet, loud, guard, bound):
    assert fired({metric: quiet}) == []
    (firing,) = ask(config(), 3, {**QUIET, metric: loud}, [])
    assert (firing.guard, firing.metric, firing.value, firing.bound) == (guard, metric, loud, bound)
    assert f"guards.{guard}." in firing.message


def test_a_metric_that_is_absent_fires_nothing():
    assert ask(config(), 3, {}, points((0.9, 0.5))) == []


def test_non_finite_has_no_value():
    assert fired({"non_finite": 0.0}) == []
    (firing,) = ask(config(), 3, {**QUIET, "non_finite": 1.0}, [])
    assert (firing.guard, firing.value, firing.action) == ("non_finite", None, "stop")


def test_probe_looks_at_the_best_so_far():
    lineage = points((0.5, None), (0.9, None), (0.7, None))
    assert fired({"probe/balanced_accuracy": 0.801}, lineage) == []
    (firing,) = ask(config(), 3, {**QUIET, "probe/balanced_accuracy": 0.8}, lineage)  # 0.9 - 0.8 < 0.1 in floats
    assert firing.guard == "probe"
    assert firing.bound == pytest.approx(0.8)
    assert "0.9 in iteration 1" in firing.message


def test_probe_has_nothing_to_compare_with_at_first():
    assert fired({"probe/balanced_accuracy": 0.1}, []) == []
    assert fired({"probe/balanced_accuracy": 0.1}, points((None, None))) == []


def collapse(lineage, truth, reward, **settings):
    guards = config(probe={"action": "off"}, reward_against_truth={"reward_rise": 0.1, "truth_fall": 0.1, **settings})
    return fired({"probe/balanced_accuracy": truth, "reward/candidates": reward}, lineage, guards)


def test_reward_against_truth_over_the_window():
    lineage = points((0.8, None), (0.8, 0.6), (0.8, 0.65), (0.75, 0.66))
    assert collapse(lineage, truth=0.7, reward=0.7) == ["reward_against_truth"]
    assert collapse(lineage, truth=0.71, reward=0.7) == []  # truth has not fallen far enough
    assert collapse(lineage, truth=0.7, reward=0.69) == []  # reward has not risen far enough
    assert collapse(lineage, truth=0.9, reward=0.9) == []  # both rise
    assert collapse(lineage, truth=0.5, reward=0.5) == []  # both fall
    assert collapse(lineage, truth=0.7, reward=0.7, window=2) == []  # within two iterations reward rose by 0.05


def test_reward_against_truth_sees_a_collapse_within_the_first_iterations():
    # The first update destroyed the model: its reward was earned before, the next one after.
    assert collapse(points((0.83, None), (0.51, 0.7)), truth=0.5, reward=0.95) == ["reward_against_truth"]
    # One iteration later than that.
    assert collapse(points((0.83, None), (0.83, 0.7)), truth=0.5, reward=0.95) == ["reward_against_truth"]
    # A single reward cannot have risen.
    assert collapse(points((0.83, None)), truth=0.5, reward=0.95) == []


def test_a_warm_up_has_no_reward_to_rise_from():
    assert collapse(points((0.5, None), (0.83, None)), truth=0.6, reward=0.95) == []


def test_a_guard_that_is_off_is_not_asked():
    off = config(label_balance={"action": "off"})
    assert "label_balance" not in active(off)
    assert fired({"probe/called_feasible": 1.0}, guards=off) == []


def test_iteration_0_only_warns():
    stop = config(label_balance={"action": "stop"}, verdict_entropy={"action": "rollback"})
    now = {**QUIET, "probe/called_feasible": 0.0, "probe/verdict_entropy": 0.0}
    assert [item.action for item in ask(stop, 0, now, [])] == ["warn", "warn"]
    assert [item.action for item in ask(stop, 1, now, [])] == ["stop", "rollback"]
