"""Retention follows the parents of iterations, not their numbers."""

import pytest

from knowrl_core.config import RetentionConfig
from knowrl_core.guards import parent_of
from knowrl_core.storage.layout import EVALUATE, GENERATE, UPDATE, StageKey
from knowrl_core.storage.retention import has_checkpoint
from tasks.retention import apply_retention
from tasks.starting import missing_policies
from tests.unit.knowrl_core.guards.runs import ROLLBACK, Run

LAST_ONLY = RetentionConfig(keep_last=1, keep_best=False)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_the_best_is_kept_while_a_guard_may_go_back_to_it(run):
    run.configure(**ROLLBACK)
    for number, truth in enumerate((0.5, 0.8, 0.7, 0.6)):
        run.iteration(number, truth)
        apply_retention(run.context(LAST_ONLY))
    assert run.kept() == [1, 3]
    run.configure()
    apply_retention(run.context(LAST_ONLY))
    assert run.kept() == [3]


def test_what_a_guard_called_a_collapse_is_not_the_best_to_go_back_to(run):
    run.configure(**ROLLBACK)
    run.iteration(0, 0.5)
    run.iteration(1, 0.8)
    run.iteration(2, 0.9, called=1.0)  # scores best, and is discarded
    for number in (3, 4):
        run.iteration(number, 0.7)
        apply_retention(run.context(LAST_ONLY))
    assert run.kept() == [1, 4]
    assert run.iteration(5, 0.6, called=1.0).parent == 1


def test_the_parent_of_the_next_iteration_is_kept(run):
    run.configure(**ROLLBACK)
    for number, truth in enumerate((0.5, 0.8, 0.7)):
        run.iteration(number, truth)
        apply_retention(run.context(LAST_ONLY))
    run.iteration(3, 0.6, called=1.0)
    run.configure()  # and nothing rolls back any more
    apply_retention(run.context(LAST_ONLY))
    assert parent_of(run.paths, 4) == 1
    assert run.kept() == [1, 3]
    run.iteration(4, 0.7)
    apply_retention(run.context(LAST_ONLY))
    assert run.kept() == [4]


def test_the_parent_is_kept_while_its_successor_is_not_evaluated(run):
    run.roll_back(0.7)
    del run.history[StageKey(4, EVALUATE)]
    run.configure()
    apply_retention(run.context(LAST_ONLY))
    assert run.kept() == [1, 4]


def test_a_coming_checkpoint_counts_already(run):
    two = RetentionConfig(keep_last=2)
    for number, truth in enumerate((0.5, 0.8, 0.7, 0.6, 0.65)):
        if number:
            apply_retention(run.context(two), coming=number)
            assert len(run.kept()) <= 2  # with the coming one as many as two last ones and the best make
            assert number == 1 or number - 1 in run.kept()
        run.iteration(number, truth)
        apply_retention(run.context(two))
    assert run.kept() == [1, 3, 4]


def test_a_prune_that_was_cut_short_is_finished(run):
    for number, truth in enumerate((0.5, 0.9, 0.7, 0.6)):
        run.iteration(number, truth)
    folder = run.paths.stage(StageKey(1, UPDATE))
    (folder / "pruned.json").write_text('{"files": ["iterations/001/update/checkpoint/model.safetensors"]}')
    assert not has_checkpoint(run.paths, 1)
    assert missing_policies(run.paths, StageKey(2, GENERATE)) == [1]
    apply_retention(run.context(RetentionConfig(keep_last=2, keep_best=True)))
    assert not (folder / "checkpoint").exists()
    assert run.kept() == [2, 3]
    assert missing_policies(run.paths, StageKey(2, EVALUATE)) == []
