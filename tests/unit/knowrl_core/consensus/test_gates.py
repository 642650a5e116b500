import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.config.learning import AnchorConfig, ConsensusConfig
from knowrl_core.consensus.gates import pool_refusal, train_refusal, trimmed_for_balance
from knowrl_core.consensus.rewards import Decision

CONFIG = ConsensusConfig(train_min_share=0.5, train_max_share=0.875, pool_min_share=0.75)


@pytest.mark.parametrize(
    ("label", "share", "reason"),
    [
        (None, 0.5, "tie"),
        (None, 0.0, "tie"),
        ("feasible", 0.375, "share_below_train_min"),
        ("feasible", 0.5, None),
        ("infeasible", 0.875, None),
        ("infeasible", 1.0, "share_above_train_max"),
    ],
)
def test_training_gate(label, share, reason):
    assert train_refusal(Decision(label, share), "feasible", CONFIG) == reason


def test_training_on_anchors_alone():
    config = ConsensusConfig(anchors=AnchorConfig(share=1.0))
    assert train_refusal(Decision("feasible", 0.75), "feasible", config) == "anchors_only"
    assert train_refusal(Decision(None, 0.5), "feasible", config) == "anchors_only"
    assert pool_refusal(Decision("feasible", 0.75), "feasible", config) is None


@pytest.mark.parametrize(
    ("label", "intended", "reason"),
    [
        ("feasible", "feasible", None),
        ("infeasible", "infeasible", None),
        ("feasible", "infeasible", "disagrees_with_intended"),
        (None, "feasible", "tie"),
    ],
)
def test_training_gate_with_agreement(label, intended, reason):
    config = ConsensusConfig(train_requires_agreement=True)
    assert train_refusal(Decision(label, 0.75), intended, config) == reason


@pytest.mark.parametrize(
    ("label", "share", "intended", "reason"),
    [
        (None, 0.5, "feasible", "tie"),
        ("feasible", 0.625, "feasible", "share_below_pool_min"),
        ("feasible", 0.75, "feasible", None),
        ("feasible", 0.75, "infeasible", "disagrees_with_intended"),
    ],
)
def test_pool_gate(label, share, intended, reason):
    assert pool_refusal(Decision(label, share), intended, CONFIG) == reason


def test_pool_gate_without_agreement():
    config = ConsensusConfig(pool_requires_agreement=False)
    assert pool_refusal(Decision("feasible", 1.0), "infeasible", config) is None


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
