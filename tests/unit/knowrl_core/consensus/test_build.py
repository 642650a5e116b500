from dataclasses import replace

import pytest

from knowrl_core.config.learning import ConsensusConfig
from knowrl_core.consensus import build_consensus, summarise
from knowrl_core.errors import StageError
from knowrl_core.storage.schemas import Candidate, VerdictRecord

Y, N, U = "feasible", "infeasible", "unparseable"


def candidate(task_id, intended=Y, *, kept=True):
    return Candidate(
        id=task_id, task=f"task {task_id}", intended=intended, iteration=1, call=0, item=0, kept=kept,
        drop_reason=None if kept else "surplus", similar_to=None, similarity=None, few_shot_ids=[],
        prompt_sha256="h", engine="e", policy="p", seed=0, finish_reason="stop",
    )  # fmt: skip


def verdicts(task_id, said, p=None, views=("v",)):
    return [
        VerdictRecord(
            task_id=task_id, sample=j, view=views[j % len(views)], verdict=verdict, text=verdict, token_ids=[1],
            logprobs=[-1.0], prompt_token_ids=[1], p_infeasible=None if p is None else p[j % len(views)],
            label_mass=None, prompt_sha256="h", engine="e", policy="p", seed=0,
        )
        for j, verdict in enumerate(said)
    ]  # fmt: skip


def build(candidates, rows, pool=(), k=4, **config):
    return build_consensus(candidates, rows, pool, ConsensusConfig(**config), iteration=1, k=k)


def test_a_small_iteration():
    candidates = [candidate("a"), candidate("b", N), candidate("c"), candidate("d", kept=False), candidate("e", N)]
    rows = verdicts("a", [Y, Y, Y, U]) + verdicts("b", [Y, Y, Y, Y]) + verdicts("c", [Y, N, U, U])
    rows += verdicts("e", [N, N, N, Y])
    records, pool = build(candidates, rows[::-1])
    assert [r.task_id for r in records] == ["a", "b", "c", "e"]
    assert [r.label for r in records] == [Y, Y, None, N]
    assert [r.share for r in records] == [0.75, 1.0, 0.25, 0.75]
    assert [r.agrees for r in records] == [True, False, None, True]
    assert [r.rewards for r in records] == [[1, 1, 1, 0], [1] * 4, [0] * 4, [1, 1, 1, 0]]
    assert [r.train_drop_reason for r in records] == [None, None, "tie", None]
    assert [r.pool_drop_reason for r in records] == [None, "disagrees_with_intended", "tie", None]
    assert (records[0].votes_feasible, records[0].votes_infeasible, records[0].votes_unparseable) == (3, 0, 1)
    assert [(p.id, p.label, p.iteration, p.share) for p in pool] == [("a", Y, 1, 0.75), ("e", N, 1, 0.75)]
    assert summarise(records, pool) == pytest.approx(
        {
            "tasks": 4, "trained": 3, "pooled": 2, "pool_size": 2, "mean_share": 2.75 / 4, "tie_rate": 0.25,
            "agreement": 0.5, "mean_reward": 10 / 16, "unparseable_rate": 3 / 16, "label_balance": 2 / 3,
        }
    )  # fmt: skip


def test_the_exact_probability_is_the_mean_over_views():
    rows = verdicts("a", [Y, Y, Y], p=(0.2, 0.6), views=("v", "w"))
    records, _ = build([candidate("a")], rows, k=3)
    assert records[0].p_infeasible == pytest.approx(0.4)
    assert build([candidate("a")], verdicts("a", [Y]), k=1)[0][0].p_infeasible is None


def test_class_balance():
    candidates = [candidate(name) for name in "abc"] + [candidate("z", N)]
    rows = [row for c in candidates for row in verdicts(c.id, [c.intended] * 4)]
    records, _ = build(candidates, rows, balance_train=True)
    assert sorted(str(r.train_drop_reason) for r in records) == ["None", "None", "class_balance", "class_balance"]
    assert records[3].trained
    assert all(r.trained == (r.train_drop_reason is None) for r in records)


def test_nothing_to_judge():
    records, pool = build([candidate("d", kept=False)], [])
    assert (records, pool) == ([], [])
    assert summarise(records, pool) == {"tasks": 0, "trained": 0, "pooled": 0, "pool_size": 0}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (verdicts("a", [Y, Y, Y]), r"task 'a': got 3 verdicts with numbers \[0, 1, 2\], expected 0 to 3"),
        (verdicts("a", [Y] * 5), "task 'a': got 5"),
        ([], "task 'a': got 0"),
        (verdicts("a", [Y] * 4) + verdicts("x", [Y]), "task 'x': got 1 verdicts, expected none"),
        ([replace(row, sample=min(row.sample, 2)) for row in verdicts("a", [Y] * 4)], r"\[0, 1, 2, 2\]"),
    ],
)
def test_wrong_verdict_rows_name_the_task(rows, words):
    with pytest.raises(StageError, match=words):
        build([candidate("a")], rows)


def test_verdicts_on_dropped_candidates_are_refused():
    with pytest.raises(StageError, match="'d'"):
        build([candidate("d", kept=False)], verdicts("d", [Y] * 4))
