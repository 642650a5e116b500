from knowrl_core.guards import parent_of, read_decision, read_firings, standing_stop
from knowrl_core.storage.layout import GENERATE, UPDATE, StageKey
from knowrl_core.storage.verify import verify_run
from tests.unit.knowrl_core.guards.runs import ROLLBACK

STOP = {"label_balance": {"action": "stop"}}


def keys(run):
    return list(run.history)


def test_parents_follow_the_iterations_until_a_guard_rolls_back(run):
    run.roll_back(0.85)
    assert [parent_of(run.paths, number) for number in range(6)] == [0, 0, 1, 2, 1, 4]


def test_a_stage_made_from_an_earlier_parent_stands(run):
    run.configure(**ROLLBACK)
    run.iteration(0, 0.5)
    run.iteration(1, 0.8)
    run.iteration(2, 0.5, called=1.0)
    run.iteration(3, 0.8)
    inputs = [ref.path for ref in run.history[StageKey(3, UPDATE)].inputs]
    assert "iterations/001/update/checkpoint/model.safetensors" in inputs
    history = verify_run(run.paths, keys(run))
    assert (history.problem, history.next_key) == (None, None)


def test_an_altered_decision_is_found(run):
    run.iteration(0, 0.5)
    run.iteration(1, 0.8)
    path = run.paths.stage(StageKey(0, "evaluate")) / "decision.json"
    path.write_text(path.read_text().replace('"parent":0', '"parent":1'))
    problem = verify_run(run.paths, keys(run)).problem
    assert str(path) in str(problem)


def test_a_discarded_branch_is_not_compared_with(run):
    run.configure(label_balance={"action": "rollback"}, reward_against_truth={"action": "off"})
    run.iteration(0, 0.5)
    run.iteration(1, 0.7)
    run.iteration(2, 0.65)
    run.iteration(3, 0.6, called=1.0)  # 0.1 below its best: probe fires as well, as a warning
    assert {row.guard for row in read_firings(run.paths, run.history)} == {"label_balance", "probe"}
    before = len(read_firings(run.paths, run.history))
    run.iteration(4, 0.65)
    run.iteration(5, 0.66)
    assert len(read_firings(run.paths, run.history)) == before
    assert [point.iteration for point in read_decision(run.paths, 5).lineage] == [0, 1, 4, 5]


def test_a_rollback_goes_to_the_best_that_has_its_checkpoint(run):
    run.configure(**ROLLBACK)
    for number, truth in enumerate((0.5, 0.9, 0.7, 0.6)):
        run.iteration(number, truth)
    for path in (run.paths.stage(StageKey(1, UPDATE)) / "checkpoint").iterdir():
        path.unlink()
    (run.paths.stage(StageKey(1, UPDATE)) / "checkpoint").rmdir()
    assert run.iteration(4, 0.6, called=1.0).parent == 2


def test_no_stop_without_one(run):
    assert standing_stop(run.config, run.paths, run.history) is None
    run.iteration(0, 0.5)
    run.iteration(1, 0.5, called=1.0)
    assert standing_stop(run.config, run.paths, run.history) is None


def test_a_stop_stands_until_the_config_says_otherwise(run):
    run.configure(**STOP)
    run.iteration(0, 0.5, called=1.0)  # the untouched model: a warning
    assert standing_stop(run.config, run.paths, run.history) is None
    run.iteration(1, 0.5, called=1.0)
    stop = standing_stop(run.config, run.paths, run.history)
    assert stop.iteration == 1
    assert stop.guards == ("label_balance",)
    assert "probe/called_feasible is 1, above guards.label_balance.highest (0.95)" in stop.reason
    assert "--set guards.label_balance.action=warn" in stop.way_on()
    run.configure(label_balance={"action": "stop", "highest": 1.0})
    assert standing_stop(run.config, run.paths, run.history) is None
    run.configure(label_balance={"action": "warn"})
    assert standing_stop(run.config, run.paths, run.history) is None


def test_an_end_by_rollback_stands_until_more_are_allowed(run):
    run.configure(max_rollbacks=0, **ROLLBACK)
    run.iteration(0, 0.8)
    run.iteration(1, 0.5, called=1.0)
    assert standing_stop(run.config, run.paths, run.history).guards == ("label_balance",)
    run.configure(max_rollbacks=1, **ROLLBACK)
    assert standing_stop(run.config, run.paths, run.history) is None
    assert parent_of(run.paths, 2) == 0


def test_what_was_decided_is_not_asked_again(run):
    run.iteration(0, 0.5)
    run.iteration(1, 0.5, called=1.0)  # a warning then
    run.configure(**STOP)
    assert standing_stop(run.config, run.paths, run.history) is None


def test_a_warm_up_is_told_by_its_stages(run):
    run.iteration(0, 0.5)
    decision = run.iteration(1, 0.8, warmup=True)
    assert StageKey(1, GENERATE) not in run.history
    assert decision.lineage[-1].reward is None
    assert run.iteration(2, 0.8).lineage[-1].reward == 0.9
