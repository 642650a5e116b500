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


def build(candidates, rows, pool=(), k=4, teacher=None, **config):
    return build_consensus(candidates, rows, pool, ConsensusConfig(**config), iteration=1, k=k, teacher=teacher)


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
    assert [r.evidence for r in records] == [0.0, 0.0, 0.5, 0.75]
    assert {(r.teacher_feasible, r.teacher_infeasible) for r in records} == {(None, None)}
    assert [(p.id, p.label, p.iteration, p.share) for p in pool] == [("a", Y, 1, 0.75), ("e", N, 1, 0.75)]
    assert summarise(records, pool) == pytest.approx(
        {
            "tasks": 4, "trained": 3, "pooled": 2, "pool_size": 2, "mean_share": 2.75 / 4, "tie_rate": 0.25,
            "agreement": 0.5, "mean_reward": 10 / 16, "unparseable_rate": 3 / 16, "label_balance": 2 / 3,
            "label_infeasible": 1 / 4, "median_infeasible": 0.25,
        }
    )  # fmt: skip


def test_the_exact_probability_is_the_mean_over_views():
    rows = verdicts("a", [Y, Y, Y], p=(0.2, 0.6), views=("v", "w"))
    records, _ = build([candidate("a")], rows, k=3)
    assert records[0].p_infeasible == pytest.approx(0.4)
    assert build([candidate("a")], verdicts("a", [Y]), k=1)[0][0].p_infeasible is None


def test_votes_are_gathered_over_views():
    # v always says feasible, w always infeasible: two votes each of 4, a tie. With 5 verdicts v has three, and wins.
    split = verdicts("a", [Y, N, Y, N], views=("v", "w"))
    assert (build([candidate("a")], split)[0][0].label, build([candidate("a")], split)[0][0].share) == (None, 0.5)
    record = build([candidate("a")], verdicts("a", [Y, N, Y, N, Y], views=("v", "w")), k=5)[0][0]
    assert (record.label, record.share) == (Y, 0.6)


def test_the_exact_probability_counts_each_view_once():
    # Views of 0.2 and 0.8 are a tie, though v is asked 3 times of 5. Weighted by verdicts it would be 0.44.
    reward = {"evidence": "probability"}
    tie = verdicts("a", [Y, N, Y, N, Y], p=(0.2, 0.8), views=("v", "w"))
    record = build([candidate("a")], tie, k=5, reward=reward)[0][0]
    assert (record.label, record.share, record.evidence, record.rewards) == (None, 0.5, 0.5, [0.0] * 5)
    # Here the votes say feasible (3 : 2), the probability (0.3 + 0.9) / 2 = 0.6 infeasible.
    rows = verdicts("a", [Y, N, Y, N, Y], p=(0.3, 0.9), views=("v", "w"))
    record = build([candidate("a")], rows, k=5, reward=reward)[0][0]
    assert (record.label, record.rewards) == (N, [0, 1, 0, 1, 0])
    assert record.share == record.evidence == record.p_infeasible == pytest.approx(0.6)
    assert build([candidate("a")], rows, k=5)[0][0].label == Y


def test_probabilities_that_are_not_there():
    with pytest.raises(StageError, match="'a': got verdicts without label probabilities") as error:
        build([candidate("a")], verdicts("a", [Y] * 4), reward={"evidence": "probability"})
    assert "evidence to votes" in error.value.hint


def test_a_teacher_gives_the_labels():
    candidates = [candidate("a"), candidate("b", N), candidate("c")]
    own = verdicts("a", [Y, Y, Y, N]) + verdicts("b", [Y, Y, N, U]) + verdicts("c", [Y] * 4)
    taught = verdicts("a", [N, N, N, Y]) + verdicts("b", [N, U, N, N]) + verdicts("c", [Y, Y, N, N])
    records, pool = build(candidates, own, teacher=taught[::-1])
    assert [r.label for r in records] == [N, N, None]
    # The teacher's share: 3 of 4 each, the unparseable one counted, and 2 of 4.
    assert [r.share for r in records] == [0.75, 0.75, 0.5]
    assert [r.evidence for r in records] == [0.75, 1.0, 0.5]
    assert [r.rewards for r in records] == [[0, 0, 0, 1], [0, 0, 1, 0], [0] * 4]
    assert [(r.teacher_feasible, r.teacher_infeasible) for r in records] == [(1, 3), (0, 3), (2, 2)]
    assert [(r.votes_feasible, r.votes_infeasible, r.votes_unparseable) for r in records] == [
        (3, 1, 0), (2, 1, 1), (4, 0, 0),
    ]  # fmt: skip
    assert [(p.id, p.label) for p in pool] == [("b", N)]
    # The policy's majority is feasible on a and b, the teacher's label infeasible: it follows in none of the two.
    assert summarise(records, pool)["teacher_agreement"] == 0.0


def test_two_judges_give_the_labels_together():
    # Ranks of three (1/6, 1/2, 5/6): the policy's b < c < a, the teacher's a < b < c. Means: a 1/2, b 1/3, c 2/3.
    candidates = [candidate("a"), candidate("b"), candidate("c", N)]
    own = verdicts("a", [N] * 4, p=(0.99,)) + verdicts("b", [Y] * 4, p=(0.01,)) + verdicts("c", [Y] * 4, p=(0.02,))
    taught = verdicts("a", [Y] * 4, p=(0.48,)) + verdicts("b", [Y] * 4, p=(0.49,)) + verdicts("c", [Y] * 4, p=(0.51,))
    reward = {"votes": "joint", "evidence": "probability"}
    records, _ = build(candidates, own, teacher=taught, reward=reward)
    assert [r.evidence for r in records] == pytest.approx([1 / 2, 1 / 3, 2 / 3])
    assert [r.label for r in records] == [None, Y, N]
    assert [r.share for r in records] == pytest.approx([1 / 2, 2 / 3, 2 / 3])
    assert [r.rewards for r in records] == [[0] * 4, [1] * 4, [0] * 4]
    # Alone the policy's exact probabilities call a infeasible and the others feasible, the teacher's only c infeasible.
    assert [r.label for r in build(candidates, own, reward={"evidence": "probability"})[0]] == [N, Y, Y]
    reward["votes"] = "channel"
    assert [r.label for r in build(candidates, own, teacher=taught, reward=reward)[0]] == [Y, Y, N]


def test_what_either_judge_cannot_parse_weakens_the_label_of_both():
    own = verdicts("a", [N, N, N, U]) + verdicts("b", [Y, Y, U, U]) + verdicts("c", [U] * 4)
    taught = verdicts("a", [N, N, U, U]) + verdicts("b", [Y] * 4) + verdicts("c", [Y] * 4)
    records, _ = build([candidate(name, N) for name in "abc"], own, teacher=taught, reward={"votes": "joint"})
    # Mid-ranks: the policy's 3/4 and 1/4 of the two tasks that it could judge, the teacher's 5/6 and 1/3 (b = c).
    assert [r.label for r in records] == [N, Y, None]
    assert [r.evidence for r in records] == [pytest.approx(19 / 24), pytest.approx(7 / 24), None]
    assert [r.share for r in records] == pytest.approx([19 / 24 * 3 / 8, 17 / 24 * 1 / 2, 0])


def test_a_teacher_may_not_miss_a_task():
    with pytest.raises(StageError, match="task 'b': got 0"):
        build([candidate("a"), candidate("b")], verdicts("a", [Y] * 4) + verdicts("b", [Y] * 4),
              teacher=verdicts("a", [Y] * 4))  # fmt: skip


CORRECTED = {"rule": "prior_corrected"}


def test_prior_corrected_by_hand():
    # Shares of infeasible: 0, 1/4, 1/4, 1/2 and (of 3 votes) 2/3. Their median is 1/4.
    said = {"a": [Y] * 4, "b": [Y, Y, Y, N], "c": [N, Y, Y, Y], "d": [Y, Y, N, N], "e": [N, N, Y, U]}
    rows = [row for task_id, words in said.items() for row in verdicts(task_id, words)]
    records, pool = build([candidate(i, N if i in "de" else Y) for i in said], rows, reward=CORRECTED)
    assert [r.label for r in records] == [Y, None, None, N, N]
    # a: p' = 0, share 1. d: 1/2 + (1/2 - 1/4) / (2 * 3/4) = 2/3. e: 1/2 + (2/3 - 1/4) / (3/2) = 7/9, times 3 of 4.
    assert [r.share for r in records] == pytest.approx([1, 1 / 2, 1 / 2, 2 / 3, 7 / 12])
    assert [r.evidence for r in records] == pytest.approx([0, 1 / 4, 1 / 4, 1 / 2, 2 / 3])
    assert [r.rewards for r in records] == [[1] * 4, [0] * 4, [0] * 4, [0, 0, 1, 1], [1, 1, 0, 0]]
    assert [r.trained for r in records] == [True, False, False, True, True]
    assert [(p.id, p.label) for p in pool] == [("a", Y)]  # pool_min_share is 0.75
    assert summarise(records, pool)["median_infeasible"] == 0.25


def test_the_pool_stays_balanced_under_corrected_labels():
    # Every task leans to feasible; against the median of 1/8 half of them are infeasible: the pool holds both alike.
    said = [[Y] * 8] * 4 + [[Y] * 6 + [N] * 2] * 4
    candidates = [candidate(f"t{i}", Y if i < 4 else N) for i in range(8)]
    rows = [row for c, words in zip(candidates, said, strict=True) for row in verdicts(c.id, words)]
    _, pool = build(candidates, rows, k=8, reward=CORRECTED, pool_min_share=0.5, pool_max_size=4)
    assert [p.label for p in pool] == [Y, Y, N, N]


def test_collapse_pays_under_plain_majority_and_not_against_the_median():
    # A model that always says feasible: each verdict is its own majority. All evidence is 0, and so is the median.
    candidates = [candidate(f"t{i}", Y if i % 2 else N) for i in range(10)]
    rows = [row for c in candidates for row in verdicts(c.id, [Y] * 4)]
    plain, _ = build(candidates, rows)
    corrected, pool = build(candidates, rows, reward=CORRECTED)
    assert {value for r in plain for value in r.rewards} == {1.0}
    assert summarise(plain, [])["mean_reward"] == 1.0
    assert {value for r in corrected for value in r.rewards} == {0.0}
    assert {r.label for r in corrected} == {None}
    assert not any(r.trained for r in corrected)
    assert pool == []
    # By exact probability a ranking is left where no vote is: 0.001 and 0.003 part at 0.002. Saying feasible earns on
    # one half of the tasks and nothing on the other.
    rows = [row for i, c in enumerate(candidates) for row in verdicts(c.id, [Y] * 4, p=[0.001 if i % 2 else 0.003])]
    ranked, _ = build(candidates, rows, reward=CORRECTED | {"evidence": "probability"})
    assert [r.label for r in ranked] == [c.intended for c in candidates]
    assert summarise(ranked, [])["mean_reward"] == 0.5


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
