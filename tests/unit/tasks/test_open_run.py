"""Retention and repair follow the parents of iterations, not their numbers."""

from pathlib import Path

import pytest

from knowrl_core.config import RetentionConfig, load_config
from knowrl_core.guards import parent_of
from knowrl_core.storage.layout import EVALUATE, GENERATE, UPDATE, StageKey
from knowrl_core.storage.retention import has_checkpoint
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.verify import verify_run
from tasks.open_run import _remove, _repair
from tasks.reporter import Reporter
from tasks.retention import apply_retention
from tasks.starting import missing_policies
from tests.unit.knowrl_core.guards.runs import Run

ROLLBACK = {"label_balance": {"action": "rollback"}}
LAST_ONLY = RetentionConfig(keep_last=1, keep_best=False)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def kept(run):
    return [key.iteration for key in run.history if run.paths.file(key, "checkpoint").exists()]


def run_file():
    """A record of the run that is only looked at by those who keep it."""
    return RunFile.create(load_config("smoke"), {})


def repair(run, damaged):
    keys = tuple(run.history)
    run.paths.file(damaged, "manifest.json").unlink()
    history = verify_run(run.paths, keys)
    return _repair(run.paths, keys, history, run_file(), Reporter())


def test_the_best_is_kept_while_a_guard_may_go_back_to_it(run):
    run.configure(**ROLLBACK)
    for number, truth in enumerate((0.5, 0.8, 0.7, 0.6)):
        run.iteration(number, truth)
        apply_retention(run.context(LAST_ONLY))
    assert kept(run) == [1, 3]
    run.configure()
    apply_retention(run.context(LAST_ONLY))
    assert kept(run) == [3]


def test_what_a_guard_called_a_collapse_is_not_the_best_to_go_back_to(run):
    run.configure(**ROLLBACK)
    run.iteration(0, 0.5)
    run.iteration(1, 0.8)
    run.iteration(2, 0.9, called=1.0)  # scores best, and is discarded
    for number in (3, 4):
        run.iteration(number, 0.7)
        apply_retention(run.context(LAST_ONLY))
    assert kept(run) == [1, 4]
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
    assert kept(run) == [1, 3]
    run.iteration(4, 0.7)
    apply_retention(run.context(LAST_ONLY))
    assert kept(run) == [4]


def test_the_parent_is_kept_while_its_successor_is_not_evaluated(run):
    run.configure(**ROLLBACK)
    for number, truth in enumerate((0.5, 0.8, 0.7)):
        run.iteration(number, truth)
    run.iteration(3, 0.6, called=1.0)
    run.iteration(4, 0.7)
    del run.history[StageKey(4, EVALUATE)]
    run.configure()
    apply_retention(run.context(LAST_ONLY))
    assert kept(run) == [1, 4]


def test_a_coming_checkpoint_counts_already(run):
    two = RetentionConfig(keep_last=2)
    for number, truth in enumerate((0.5, 0.8, 0.7, 0.6, 0.65)):
        if number:
            apply_retention(run.context(two), coming=number)
            assert len(kept(run)) <= 2  # with the coming one as many as two last ones and the best make
            assert number == 1 or number - 1 in kept(run)
        run.iteration(number, truth)
        apply_retention(run.context(two))
    assert kept(run) == [1, 3, 4]


def test_a_prune_that_was_cut_short_is_finished(run):
    for number, truth in enumerate((0.5, 0.9, 0.7, 0.6)):
        run.iteration(number, truth)
    folder = run.paths.stage(StageKey(1, UPDATE))
    (folder / "pruned.json").write_text('{"files": ["iterations/001/update/checkpoint/model.safetensors"]}')
    assert not has_checkpoint(run.paths, 1)
    assert missing_policies(run.paths, StageKey(2, GENERATE)) == [1]
    apply_retention(run.context(RetentionConfig(keep_last=2, keep_best=True)))
    assert not (folder / "checkpoint").exists()
    assert kept(run) == [2, 3]
    assert missing_policies(run.paths, StageKey(2, EVALUATE)) == []


def test_going_back_never_leaves_a_hole(run, monkeypatch):
    """A process that dies while it removes stages leaves a run that can go on without a repair."""
    run.configure()
    for number in range(4):
        run.iteration(number, 0.5)
    keys = tuple(run.history)
    history = verify_run(run.paths, keys)
    renames = []
    rename = Path.rename

    def dying(self, target):
        renames.append(self)
        if len(renames) == 4:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", dying)
    with pytest.raises(KeyboardInterrupt):
        _remove(run.paths, keys, history, StageKey(1, UPDATE), run_file())
    left = verify_run(run.paths, keys)
    assert left.problem is None
    assert left.next_key == keys[len(keys) - 3]


def test_repair_needs_the_checkpoint_of_the_parent(run):
    run.configure(**ROLLBACK)
    for number, truth in enumerate((0.5, 0.8, 0.7)):
        run.iteration(number, truth)
    run.iteration(3, 0.6, called=1.0)
    run.iteration(4, 0.7)
    apply_retention(run.context(RetentionConfig(keep_last=1)))
    assert kept(run) == [1, 4]
    # Iteration 4 began with the checkpoint of 1, which is there; that of 3 is not needed.
    assert repair(run, StageKey(4, GENERATE)).next_key == StageKey(4, GENERATE)


def test_repair_steps_back_along_the_parents(run):
    run.configure(**ROLLBACK)
    for number, truth in enumerate((0.5, 0.8, 0.7)):
        run.iteration(number, truth)
    run.iteration(3, 0.6, called=1.0)
    run.iteration(4, 0.9)
    run.iteration(5, 0.9)
    apply_retention(run.context(LAST_ONLY))
    run.configure()
    apply_retention(run.context(LAST_ONLY))
    assert kept(run) == [5]
    # 5 began with 4, and 4 with 1: both were pruned.
    assert repair(run, StageKey(5, GENERATE)).next_key == StageKey(1, UPDATE)
    assert not run.paths.stage(StageKey(2, GENERATE)).exists()
