"""The label rules, by hand and by what must hold for any verdicts."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.consensus.rewards import (
    RULES,
    Decision,
    agreement,
    decide,
    joint_evidence,
    majority,
    median_of,
    prior_corrected,
    rank,
)
from knowrl_core.consensus.vote import tally

Y, N, U = "feasible", "infeasible", "unparseable"
SWAP = {Y: N, N: Y, U: U, None: None}

F = Fraction


def shares(*values):
    return [None if value is None else F(value) for value in values]


@pytest.mark.parametrize(
    ("evidence", "median"),
    [(shares(), None), (shares(None), None), (shares("1/3", None, 0), F(1, 6)), (shares(1, 0, "1/4"), F(1, 4))],
)
def test_median_of_what_there_is(evidence, median):
    assert median_of(evidence) == median


probabilities = st.one_of(st.none(), st.fractions(0, 1))


@given(st.lists(st.tuples(probabilities, probabilities), max_size=12))
def test_two_judges_count_alike_and_only_by_their_order(pairs):
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    both = joint_evidence(first, second)
    assert both == joint_evidence(second, first)
    assert both == joint_evidence([None if p is None else p**3 / 2 for p in first], second)
    assert [p is None for p in both] == [one is None or other is None for one, other in pairs]
    turned = [None if p is None else 1 - p for p in first], [None if p is None else 1 - p for p in second]
    assert joint_evidence(*turned) == [None if p is None else 1 - p for p in both]
    assert joint_evidence(first, first) == rank(first)


def test_the_majority_takes_evidence_as_it_is():
    assert majority(shares(0, "1/2", 1, None)) == shares(0, "1/2", 1, None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Median 1/4: 1/8 -> 1/8 / (2 * 1/4) = 1/4; 5/8 -> 1/2 + (3/8) / (2 * 3/4) = 3/4.
        (shares(0, "1/8", "1/4", "5/8", 1), shares(0, "1/4", "1/2", "3/4", 1)),
        # Median 0, nothing lies below: 1/2 -> 1/2 + 1/2 / 2.
        (shares(0, 0, 0, "1/2", 1), shares("1/2", "1/2", "1/2", "3/4", 1)),
        # Median 1, nothing lies above: 1/2 -> 1/2 / 2.
        (shares(0, "1/2", 1, 1, 1), shares(0, "1/4", "1/2", "1/2", "1/2")),
        # An even number: the median 1/2 lies between the middle two, and no task at it.
        (shares("1/4", "3/4"), shares("1/4", "3/4")),
        (shares("1/3", "1/3"), shares("1/2", "1/2")),
        (shares(None, "1/3", None), shares(None, "1/2", None)),
        (shares(), shares()),
    ],
)
def test_prior_correction_by_hand(before, after):
    assert prior_corrected(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Of four, with the middle two alike: (0 + 1/2) / 4, (1 + 2/2) / 4 twice, (3 + 1/2) / 4.
        (shares("1/9", "1/3", "1/3", "2/5"), shares("1/8", "1/2", "1/2", "7/8")),
        (shares("2/5", None, "1/9"), shares("3/4", None, "1/4")),
        (shares("1/3", "1/3", "1/3"), shares("1/2", "1/2", "1/2")),
        (shares(None), shares(None)),
        (shares(), shares()),
    ],
)
def test_ranks_by_hand(before, after):
    assert rank(before) == after


def test_decisions_by_hand():
    evidence = shares(0, "2/3", "1/2", None)
    parseable = [F(1), F(3, 4), F(1, 2), F(0)]
    # 2/3 of 3 votes are infeasible, with k = 4 that is 2 of 4.
    assert decide(evidence, parseable, majority) == [
        Decision(Y, 1.0), Decision(N, 0.5), Decision(None, 0.25), Decision(None, 0.0),
    ]  # fmt: skip


def test_rewards_by_hand():
    verdicts = [Y, N, U, Y]
    assert agreement(verdicts, Y) == [1.0, 0.0, 0.0, 1.0]
    assert agreement(verdicts, None) == [0.0] * 4


BATCH = st.integers(1, 8).flatmap(
    lambda k: st.lists(st.lists(st.sampled_from([Y, N, U]), min_size=k, max_size=k), max_size=12)
)
RULE = st.sampled_from(sorted(RULES))


def judged(batch, rule):
    """Decisions and rewards of a batch whose verdicts are their own judges."""
    counts = [tally(said) for said in batch]
    evidence = [F(c.infeasible, c.feasible + c.infeasible) if c.feasible + c.infeasible else None for c in counts]
    decisions = decide(evidence, [F(c.feasible + c.infeasible, c.k) for c in counts], RULES[rule])
    return decisions, [agreement(said, d.label) for said, d in zip(batch, decisions, strict=True)]


@given(BATCH, RULE)
def test_rewards_are_0_or_1_and_never_for_the_unparseable(batch, rule):
    decisions, rewards = judged(batch, rule)
    for said, decision, row in zip(batch, decisions, rewards, strict=True):
        assert set(row) <= {0.0, 1.0}
        assert all(reward == 0 for verdict, reward in zip(said, row, strict=True) if verdict == U)
        assert decision.label is not None or not any(row)
        # No surer than the verdicts that could be parsed.
        assert 0 <= decision.share <= 1 - said.count(U) / len(said) + 1e-12
        assert decision.label is None or 2 * decision.share > 1 - said.count(U) / len(said) - 1e-12


@given(BATCH, RULE, st.randoms())
def test_neither_the_order_of_votes_nor_that_of_tasks_matters(batch, rule, random):
    decisions, _ = judged(batch, rule)
    assert judged([sorted(said) for said in batch], rule)[0] == decisions
    order = list(range(len(batch)))
    random.shuffle(order)
    assert judged([batch[i] for i in order], rule)[0] == [decisions[i] for i in order]


@given(BATCH, RULE)
def test_swapping_the_labels_everywhere_swaps_labels_and_keeps_rewards(batch, rule):
    decisions, rewards = judged(batch, rule)
    other, same = judged([[SWAP[verdict] for verdict in said] for said in batch], rule)
    assert other == [Decision(SWAP[d.label], d.share) for d in decisions]
    assert same == rewards


@given(BATCH)
def test_the_share_of_a_majority_is_its_votes_over_k(batch):
    for said, decision in zip(batch, judged(batch, "majority")[0], strict=True):
        votes = tally(said)
        assert decision == Decision(votes.majority, votes.share)


@given(BATCH)
def test_against_the_median_at_most_half_of_the_tasks_get_a_label(batch):
    labels = [decision.label for decision in judged(batch, "prior_corrected")[0]]
    with_votes = sum(Y in said or N in said for said in batch)
    assert 2 * labels.count(Y) <= with_votes
    assert 2 * labels.count(N) <= with_votes


@given(st.fractions(0, 1), st.integers(1, 20))
def test_against_the_median_a_batch_of_equal_evidence_gets_no_label(share, size):
    decisions = decide([share] * size, [F(1)] * size, prior_corrected)
    assert decisions == [Decision(None, 0.5)] * size


@given(st.lists(st.fractions(0, 1), min_size=1))
def test_the_correction_keeps_order_and_bounds(evidence):
    moved = prior_corrected(evidence)
    assert all(0 <= value <= 1 for value in moved)
    ranked = sorted(zip(evidence, moved, strict=True))
    assert all((a < b) == (x < y) for (a, x), (b, y) in pairwise(ranked))
