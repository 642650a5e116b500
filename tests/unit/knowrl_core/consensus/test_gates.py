import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.config.learning import ConsensusConfig
from knowrl_core.consensus.gates import pool_refusal, train_refusal, trimmed_for_balance
from knowrl_core.consensus.vote import Tally

CONFIG = ConsensusConfig(train_min_share=0.5, train_max_share=0.875, pool_min_share=0.75)


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        ((4, 4, 0), "tie"),
        ((0, 0, 8), "tie"),
        ((3, 2, 3), "share_below_train_min"),
        ((4, 3, 1), None),
        ((7, 1, 0), None),
        ((0, 8, 0), "share_above_train_max"),
    ],
)
def test_training_gate(votes, reason):
    assert train_refusal(Tally(*votes), CONFIG) == reason


@pytest.mark.parametrize(
    ("votes", "intended", "reason"),
    [
        ((4, 4, 0), "feasible", "tie"),
        ((5, 3, 0), "feasible", "share_below_pool_min"),
        ((6, 2, 0), "feasible", None),
        ((6, 2, 0), "infeasible", "disagrees_with_intended"),
    ],
)
def test_pool_gate(votes, intended, reason):
    assert pool_refusal(Tally(*votes), intended, CONFIG) == reason


def test_pool_gate_without_agreement():
    config = ConsensusConfig(pool_requires_agreement=False)
    assert pool_refusal(Tally(8, 0, 0), "infeasible", config) is None


TASKS = st.dictionaries(st.text(), st.sampled_from(["feasible", "infeasible"])).map(lambda d: list(d.items()))


@given(TASKS, st.randoms())
def test_trimming_balances_whatever_the_order(tasks, random):
    out = trimmed_for_balance(tasks)
    left = [label for task_id, label in tasks if task_id not in out]
    labels = [label for _, label in tasks]
    smaller = min(labels.count("feasible"), labels.count("infeasible"))
    assert left.count("feasible") == left.count("infeasible") == smaller
    shuffled = list(tasks)
    random.shuffle(shuffled)
    assert trimmed_for_balance(shuffled) == out
