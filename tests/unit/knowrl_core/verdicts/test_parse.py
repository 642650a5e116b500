import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.verdicts import parse_verdict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Verdict: feasible", "feasible"),
        ("Verdict: infeasible", "infeasible"),
        ("I know this.\nVerdict: feasible", "feasible"),
        ("It needs a body.\n\n**Verdict:** Infeasible.\n\n", "infeasible"),
        ("**Verdict: FEASIBLE**", "feasible"),
        ("> verdict: `infeasible`!", "infeasible"),
        ("- Final verdict: “feasible”", "feasible"),
        ("# My Verdict : infeasible", "infeasible"),
        ("Ｖerdict： feasible", "feasible"),  # noqa: RUF001 - full-width signs
        ("Verdict: infeas\u200bible", "infeasible"),
        ("Verdict: feasible\nVerdict: feasible", "feasible"),
        ("The verdict is not easy.\nVerdict: feasible", "feasible"),
    ],
)
def test_clear_verdicts(text, expected):
    assert parse_verdict(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n \n",
        "feasible",
        "This task is feasible.",
        "Verdict:",
        "Verdict: not feasible",
        "Verdict: not infeasible",
        "Verdict: un-feasible",
        "Verdict: in feasible",
        "Verdict: feasible or infeasible",
        "Verdict: feasible/infeasible",
        "Verdict: feasible, because I know it",
        "Verdict: probably feasible",
        "Verdict: infeasibleness",
        "Verdict: yes",
        "Verdict feasible",
        "Verdict: feasible\nVerdict: infeasible",
        "Verdict: not feasible\nVerdict: infeasible",
        "Verdict: feasible\nI am sure.",
        "The verdict: feasible",
    ],
)
def test_unclear_verdicts(text):
    assert parse_verdict(text) == "unparseable"


def test_a_prefill_may_hold_the_beginning_of_the_line():
    assert parse_verdict(" feasible", "Reason: I know it.\nVerdict:") == "feasible"
    assert parse_verdict(" infeasible.", "Verdict:") == "infeasible"
    assert parse_verdict(" It is easy.\nVerdict: feasible", "Reason:") == "feasible"


@given(st.text(), st.text())
def test_never_raises(text, prefill):
    assert parse_verdict(text, prefill) in ("feasible", "infeasible", "unparseable")


CASE = st.sampled_from([str.lower, str.upper, str.title])
MARK = st.sampled_from(["", "**", "*", "`", "_", '"'])


@given(
    st.text().filter(lambda t: "erdict" not in t.casefold()), st.sampled_from(["feasible", "infeasible"]), CASE, MARK
)
def test_a_clear_last_line_decides_after_any_reasoning(reasoning, label, case, mark):
    assert parse_verdict(f"{reasoning}\n{mark}{case('verdict')}: {case(label)}{mark}.") == label


@given(st.text(alphabet="abefilns ", min_size=1, max_size=4).filter(lambda t: t.strip()))
def test_any_word_beside_the_label_is_no_verdict(extra):
    for said in (f"{extra}feasible", f"feasible{extra}", f"{extra} feasible"):
        if said.strip() not in ("feasible", "infeasible"):
            assert parse_verdict(f"Verdict: {said}") == "unparseable"
