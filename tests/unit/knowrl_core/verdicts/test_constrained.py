import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.engines.base import ChooseResult, Turn
from knowrl_core.errors import StageError
from knowrl_core.verdicts.constrained import choices_after, label_probability


def result(feasible, infeasible):
    return ChooseResult(prompt_token_ids=(1,), token_ids=((2,), (3, 4)), token_logprobs=(feasible, infeasible))


def test_by_hand():
    # P(feasible) = 0.1; P(infeasible) = 0.6 * 0.5 = 0.3; renormalised 0.3 / 0.4.
    probability = label_probability(result((math.log(0.1),), (math.log(0.6), math.log(0.5))), 1.0)
    assert probability.p_infeasible == pytest.approx(0.75)
    assert probability.label_mass == pytest.approx(0.4)
    # At temperature 2 the odds 3 become sqrt(3).
    hot = label_probability(result((math.log(0.1),), (math.log(0.6), math.log(0.5))), 2.0)
    assert hot.p_infeasible == pytest.approx(math.sqrt(3) / (1 + math.sqrt(3)))
    assert hot.label_mass == pytest.approx(0.4)


@given(st.floats(-5000, 0), st.floats(-5000, 0), st.floats(0.01, 5))
def test_is_a_probability_at_any_scale(feasible, infeasible, temperature):
    probability = label_probability(result((feasible,), (infeasible, 0.0)), temperature)
    assert 0 <= probability.p_infeasible <= 1
    assert 0 <= probability.label_mass <= 1
    swapped = label_probability(result((infeasible,), (feasible, 0.0)), temperature)
    assert probability.p_infeasible + swapped.p_infeasible == pytest.approx(1)


def test_draw():
    probability = label_probability(result((math.log(0.75),), (math.log(0.25), 0.0)), 1.0)
    assert probability.draw(0.0) == "infeasible"
    assert probability.draw(0.2499) == "infeasible"
    assert probability.draw(0.2501) == "feasible"
    certain = label_probability(result((0.0,), (-10_000.0, 0.0)), 1.0)
    assert certain.draw(0.0) == "feasible"


def test_choices_follow_a_prefill_with_a_space():
    user, prefill = Turn(role="user", content="a"), Turn(role="assistant", content="Answer:")
    assert choices_after((user, prefill)) == (" feasible", " infeasible")
    assert choices_after((user,)) == ("feasible", "infeasible")


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_non_finite_scores_are_refused(bad):
    with pytest.raises(StageError, match="expected two finite numbers"):
        label_probability(result((bad,), (0.0, 0.0)), 1.0)
