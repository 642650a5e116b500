from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.consensus import anchor_tasks, build_anchors, draw_anchors, summarise
from knowrl_core.consensus.anchors import count_anchors
from knowrl_core.errors import StageError
from knowrl_core.seeds import SeedTask
from knowrl_core.storage.schemas import VerdictRecord

Y, N, U = "feasible", "infeasible", "unparseable"


def seeds(feasible=10, infeasible=10):
    labels = [Y] * feasible + [N] * infeasible
    return [SeedTask(id=f"s{i}", task=f"Do thing {i}", label=label) for i, label in enumerate(labels)]


def draw(tasks, share=0.3, candidates=14, iteration=1, **more):
    return draw_anchors(tasks, share=share, candidates=candidates, run_seed=7, iteration=iteration, **more)


@pytest.mark.parametrize(
    ("candidates", "share", "number"),
    [
        (14, 0.3, 6),  # 0.3 / 0.7 * 14 = 6, and 6 / (6 + 14) = 0.3
        (10, 0.5, 10),
        (10, 0.0, 0),
        (0, 0.5, 0),
        (10, 1.0, 10),
        (60, 0.1, 7),  # 60 / 9 = 6.67
    ],
)
def test_number(candidates, share, number):
    assert count_anchors(candidates, share) == number


def test_both_labels_alike_in_the_order_of_the_seeds_anew_each_iteration():
    drawn = draw(seeds())
    assert Counter(anchor.label for anchor in drawn) == {Y: 3, N: 3}
    assert [int(anchor.id[1:]) for anchor in drawn] == sorted(int(anchor.id[1:]) for anchor in drawn)
    assert drawn == draw(seeds())
    others = [draw(seeds(), iteration=iteration) for iteration in range(2, 8)]
    assert all(other != drawn for other in others)
    # Each seed's turn comes.
    assert len({anchor.id for other in [*others, drawn] for anchor in other}) > 15


def test_an_odd_number_gives_one_more_to_either_label():
    odd = [Counter(a.label for a in draw(seeds(), share=0.5, candidates=3, iteration=i)) for i in range(20)]
    assert {tuple(sorted(count.values())) for count in odd} == {(1, 2)}
    assert {count[Y] for count in odd} == {1, 2}


def test_no_more_than_there_are_seeds():
    assert len(draw(seeds(), share=1.0, candidates=500)) == 20
    assert len(draw(seeds(), share=0.999999, candidates=500)) == 20
    # Ten feasible seeds have two infeasible ones beside them: alike means two of each.
    assert Counter(a.label for a in draw(seeds(10, 2), share=0.5, candidates=50)) == {Y: 2, N: 2}
    assert draw(seeds(10, 0), share=0.5) == []


def test_what_measures_is_no_anchor():
    drawn = draw(seeds(), share=1.0, candidates=20, held_out=["do THING 3.", "Do thing 12"])
    assert {"s3", "s12"}.isdisjoint(anchor.id for anchor in drawn)
    assert len(drawn) == 18


@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 40), st.floats(0, 1), st.integers(0, 5))
def test_bounds(feasible, infeasible, candidates, share, iteration):
    drawn = draw(seeds(feasible, infeasible), share=share, candidates=candidates, iteration=iteration)
    counts = Counter(anchor.label for anchor in drawn)
    assert abs(counts[Y] - counts[N]) <= 1
    assert len(drawn) == min(count_anchors(candidates, share), 2 * min(feasible, infeasible))


def verdicts(seed_id, said, p=None):
    return [
        VerdictRecord(
            task_id=f"seed/{seed_id}", sample=j, view="v", verdict=verdict, text=verdict, token_ids=[1],
            logprobs=[-1.0], prompt_token_ids=[1], p_infeasible=p, label_mass=None, prompt_sha256="h", engine="e",
            policy="p", seed=0,
        )
        for j, verdict in enumerate(said)
    ]  # fmt: skip


def test_rewards_by_the_verified_label():
    tasks = seeds(2, 2)  # s0 and s1 feasible, s2 and s3 infeasible
    assert anchor_tasks(tasks[2:]) == [("seed/s2", "Do thing 2"), ("seed/s3", "Do thing 3")]
    rows = verdicts("s0", [Y, N, U, Y]) + verdicts("s2", [Y, Y, Y, N], p=0.2) + verdicts("s3", [Y, N, U, U])
    first, second, third = build_anchors(rows, tasks, k=4)
    assert (first.task_id, first.task, first.intended, first.label) == ("seed/s0", "Do thing 0", Y, Y)
    assert (first.rewards, first.share, first.agrees) == ([1, 0, 0, 1], 0.5, True)
    # Most verdicts are wrong: no gate asks whether they agree.
    assert (second.label, second.rewards, second.share, second.agrees) == (N, [0, 0, 0, 1], 0.25, False)
    assert (second.p_infeasible, second.evidence) == (0.2, None)
    assert (third.agrees, third.votes_unparseable) == (None, 2)
    for row in (first, second, third):
        assert (row.trained, row.train_drop_reason, row.pooled, row.pool_drop_reason) == (True, None, False, "anchor")
    # 2 + 1 + 1 right of 12.
    figures = summarise([], [], [first, second, third])
    assert (figures["anchors"], figures["anchor_reward"], figures["tasks"]) == (3, pytest.approx(4 / 12), 0)


@pytest.mark.parametrize("always", [Y, N])
def test_a_model_that_always_says_the_same_earns_half(always):
    tasks = seeds(5, 5)
    rows = [row for seed in tasks for row in verdicts(seed.id, [always] * 4)]
    assert summarise([], [], build_anchors(rows, tasks, k=4))["anchor_reward"] == 0.5


def test_wrong_rows():
    assert build_anchors([], seeds(), k=4) == []
    with pytest.raises(StageError, match="'seed/x' is no seed"):
        build_anchors(verdicts("x", [Y] * 4), seeds(), k=4)
    with pytest.raises(StageError, match="'seed/s0': got 3"):
        build_anchors(verdicts("s0", [Y] * 3), seeds(), k=4)
    with pytest.raises(StageError, match=r"\[0, 0, 1, 2\]"):
        build_anchors([replace(row, sample=max(row.sample - 1, 0)) for row in verdicts("s0", [Y] * 4)], seeds(), k=4)
