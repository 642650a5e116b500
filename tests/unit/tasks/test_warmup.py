"""How the update's config becomes that of a warm-up, and how a rollback lowers learning rates."""

import pytest

from knowrl_core.config import load_config
from tasks.update import needs_reference, scaled
from tasks.warmup import supervised, warmup_views


def test_a_warm_up_has_its_own_constant_learning_rate_and_one_batch():
    config = load_config(
        "smoke",
        ["warmup.epochs=3", "warmup.learning_rate=1e-5", "rl.min_learning_rate=5e-5", "rl.decay_steps=10"],
    )
    rl = supervised(config.rl, config.warmup, tasks=100)
    assert (rl.learning_rate, rl.decay_steps, rl.warmup_steps, rl.epochs) == (1e-5, 0, 0, 3)
    assert (rl.rollout_batch_size, rl.train_batch_size, rl.kl_coef) == (100, 16, 0.0)
    assert type(rl).model_validate(rl.model_dump()) == rl  # it crosses processes
    assert supervised(config.rl, config.warmup, tasks=0).rollout_batch_size == 1


def test_views_are_those_of_the_verdicts_unless_given():
    assert [view.name for view in warmup_views(load_config("smoke"))] == ["feasible_first"]
    both = load_config("smoke", ["warmup.views=[infeasible_first, feasible_first]"])
    assert [view.name for view in warmup_views(both)] == ["infeasible_first", "feasible_first"]


def test_a_rollback_lowers_the_whole_schedule():
    config = load_config("smoke", ["rl.learning_rate=1e-4", "rl.min_learning_rate=8e-5"])
    rl = scaled(config.rl, 0.5)
    assert (rl.learning_rate, rl.min_learning_rate) == (5e-5, 4e-5)
    assert type(rl).model_validate(rl.model_dump()) == rl
    assert scaled(config.rl, 1.0) == config.rl


@pytest.mark.parametrize(
    ("kl_coef", "action", "needed"),
    [(1e-3, "off", True), (0, "off", False), (0, "warn", False), (0, "stop", True), (0, "rollback", True)],
)
def test_a_guard_that_acts_on_the_kl_needs_the_reference(kl_coef, action, needed):
    assert needs_reference(load_config("smoke", [f"rl.kl_coef={kl_coef}", f"guards.kl.action='{action}'"])) is needed
