import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.consensus.vote import Tally, tally

VERDICTS = st.lists(st.sampled_from(["feasible", "infeasible", "unparseable"]), min_size=1, max_size=16)


@pytest.mark.parametrize(
    ("votes", "majority", "share"),
    [
        ((8, 0, 0), "feasible", 1.0),
        ((3, 5, 0), "infeasible", 0.625),
        ((4, 4, 0), None, 0.5),
        ((3, 1, 4), "feasible", 0.375),
        ((1, 1, 6), None, 0.125),
        ((0, 0, 8), None, 0.0),
        ((0, 0, 0), None, 0.0),
    ],
)
def test_by_hand(votes, majority, share):
    assert Tally(*votes).majority == majority
    assert Tally(*votes).share == share


def test_infeasible_share_is_over_votes():
    assert Tally(1, 3, 4).infeasible_share == 0.75
    assert Tally(0, 0, 4).infeasible_share is None


def test_unknown_verdict():
    with pytest.raises(ValueError, match="'maybe', expected feasible"):
        tally(["feasible", "maybe"])


@given(VERDICTS)
def test_properties(verdicts):
    votes = tally(verdicts)
    assert votes.k == len(verdicts)
    assert votes == tally(reversed(verdicts))
    assert 0 <= votes.share <= 1
    if votes.majority:
        other = {"feasible": "infeasible", "infeasible": "feasible"}[votes.majority]
        assert verdicts.count(votes.majority) > verdicts.count(other)
        assert votes.share == verdicts.count(votes.majority) / len(verdicts)
