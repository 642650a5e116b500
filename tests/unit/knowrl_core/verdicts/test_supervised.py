import pytest

from knowrl_core.config import load_config
from knowrl_core.engines.base import Turn
from knowrl_core.errors import StageError
from knowrl_core.labels import LABELS
from knowrl_core.prompts import load_prompts
from knowrl_core.verdicts import parse_verdict
from knowrl_core.verdicts.ask import Ask, Question, plan_asks
from knowrl_core.verdicts.supervised import target_request


def ask(mode):
    config = load_config("smoke")
    template = load_prompts(config.prompts).verdict(mode)
    (found,) = plan_asks(
        [Question("seed/s1", "Add two numbers.")],
        template,
        config.verdict,
        k=1,
        run_seed=1,
        iteration=1,
        stage="update",
    )
    return found


def without_prefill(found):
    return Ask(found.question, found.view, (Turn(role="user", content="?"),), found.samples, found.seed)


@pytest.mark.parametrize("label", LABELS)
def test_constrained_is_the_label_string(label):
    request = target_request(ask("constrained"), label, "Because.", "constrained")
    assert (request.choices, request.closed) == ((f" {label}",), False)
    assert target_request(without_prefill(ask("constrained")), label, "", "constrained").choices == (label,)


@pytest.mark.parametrize("label", LABELS)
def test_free_is_a_closed_response_in_the_form_of_the_template(label):
    request = target_request(ask("free"), label, "I can  do\nthis.", "free")
    assert (request.choices, request.closed) == ((f" I can do this.\nVerdict: {label}",), True)
    assert request.turns[-1].content == "Reason:"
    assert parse_verdict(request.choices[0], "Reason:") == label


def test_free_without_a_reason_or_a_prefill():
    assert target_request(ask("free"), "feasible", "", "free").choices == ("\nVerdict: feasible",)
    bare = without_prefill(ask("free"))
    assert target_request(bare, "feasible", "", "free").choices == ("Verdict: feasible",)
    assert target_request(bare, "feasible", "Easy.", "free").choices == ("Reason: Easy.\nVerdict: feasible",)


def test_a_response_that_does_not_read_as_the_verdict_is_refused():
    odd = ask("free")
    turns = (*odd.turns[:-1], Turn(role="assistant", content="Verdict: infeasible\nVerdict: infeasible\nSo"))
    prefilled = Ask(odd.question, odd.view, turns, odd.samples, odd.seed)
    # Only the last line of a prefill belongs to the response, so this one reads well ...
    assert target_request(prefilled, "feasible", "Easy.", "free").choices == (" Easy.\nVerdict: feasible",)
    turns = (*odd.turns[:-1], Turn(role="assistant", content="Verdict:"))
    with pytest.raises(StageError, match="does not read as the verdict feasible") as caught:
        # ... and this one states two.
        target_request(Ask(odd.question, odd.view, turns, odd.samples, odd.seed), "feasible", "infeasible", "free")
    assert "template" in caught.value.hint
