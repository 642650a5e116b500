"""From consensus and verdicts to rollouts."""

from knowrl_core.storage.schemas import ConsensusRecord, VerdictRecord
from tasks.update import rollouts


def verdict(task_id, sample, token, prompt):
    return VerdictRecord(
        task_id=task_id,
        sample=sample,
        view="feasible_first",
        verdict="feasible",
        text="feasible",
        token_ids=[token],
        logprobs=[-0.5],
        prompt_token_ids=prompt,
        p_infeasible=None,
        label_mass=None,
        prompt_sha256="p",
        engine="e",
        policy="x",
        seed=0,
    )


def row(task_id, *, trained, rewards, label="feasible"):
    return ConsensusRecord(
        task_id=task_id,
        task="t",
        intended="feasible",
        label=label,
        share=1.0,
        evidence=0.0,
        teacher_feasible=None,
        teacher_infeasible=None,
        votes_feasible=2,
        votes_infeasible=0,
        votes_unparseable=0,
        p_infeasible=None,
        agrees=True,
        rewards=rewards,
        trained=trained,
        train_drop_reason=None,
        pooled=False,
        pool_drop_reason=None,
    )


def test_only_trained_tasks_with_the_reward_of_each_sample():
    verdicts = [
        verdict("b", 1, 11, [1, 2]),
        verdict("a", 0, 12, [1]),
        verdict("b", 0, 10, [1, 2]),
        verdict("b", 2, 10, [3]),
        verdict("a", 1, 12, [1]),
    ]
    rows = [row("a", trained=False, rewards=[1.0, 0.0]), row("b", trained=True, rewards=[1.0, 0.0, 0.5])]
    [found] = rollouts(rows, verdicts)
    assert found.task_id == "b"
    by_prompt = {
        group.prompt_token_ids: {item.sample: (item.response_token_ids, item.reward) for item in group.verdicts}
        for group in found.prompts
    }
    assert by_prompt == {(1, 2): {0: ((10,), 1.0), 1: ((11,), 0.0)}, (3,): {2: ((10,), 0.5)}}


def test_nothing_trained_gives_nothing():
    assert rollouts([row("a", trained=False, rewards=[1.0])], [verdict("a", 0, 1, [1])]) == []


def test_label_and_kind_go_along():
    rows = [row("a", trained=True, rewards=[1.0]), row("b", trained=True, rewards=[0.0], label="infeasible")]
    found = rollouts(rows, [verdict("a", 0, 1, [1]), verdict("b", 0, 1, [1])])
    assert [(item.label, item.anchor) for item in found] == [("feasible", False), ("infeasible", False)]
    [anchor] = rollouts([row("seed/x", trained=True, rewards=[1.0])], [verdict("seed/x", 0, 1, [1])], anchor=True)
    assert (anchor.task_id, anchor.label, anchor.anchor) == ("seed/x", "feasible", True)
