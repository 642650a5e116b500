import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.config.learning import FilterConfig
from knowrl_core.introspection.filters import FilterContext, drop_reason

TOLD = "Write tasks for yourself that you are confident you can do well. A task is an instruction or a plain question."


def reason(text, **config):
    return drop_reason(text, FilterContext(FilterConfig(**config), TOLD))


@pytest.mark.parametrize(
    "text",
    [
        "Write a poem about the sea.",
        "What is 2 + 2?",
        "Is it feasible to build a bridge over the Atlantic?",
        "List three infeasible energy sources and say why.",
        "Book me a table (for two) tonight.",
        "Who can do a handstand?",
        "What does an AI language model do?",
        "Übersetze „Guten Morgen“ ins Französische.",
        "Is a < b if a = 1 and b = 2?",
        "How do I pronounce 'aaaah' in Spanish?",
    ],
)
def test_good_tasks_stay(text):
    assert reason(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write a poem.<|im_end|>", "control"),
        ("Write a poem.</s> Now", "control"),
        ("Write a\x07 poem now.", "control"),
        ("Write a poem \ufffd now.", "control"),
        ("[INST] Write a poem", "control"),
        ("A task is an instruction or a plain question.", "template_echo"),
        ("Now write tasks for yourself that you are confident you can do", "template_echo"),
        ("[Insert your task here]", "template_echo"),
        ("Translate <your sentence> into French.", "template_echo"),
        ("...", "template_echo"),
        ("", "template_echo"),
        ("Clean my kitchen. (infeasible)", "label_leak"),
        ("Clean my kitchen - infeasible", "label_leak"),
        ("Infeasible: clean my kitchen today", "label_leak"),
        ("Clean my kitchen [feasible: no]", "label_leak"),
        ("Clean my kitchen. Label: feasible.", "label_leak"),
        ("Clean my kitchen (I cannot do this)", "label_leak"),
        ("As an AI, I have no kitchen to clean.", "label_leak"),
        ("Sing loudly", "too_short"),
        ("word " * 121, "too_long"),
        ("Go there and go there and go there and go there and go there", "repetition"),
        ("Write aaaaaaaaaaaaaaaaaaaaaaaa now", "repetition"),
    ],
)
def test_reasons(text, expected):
    assert reason(text) == expected


def test_keywords_are_whole_words_or_phrases():
    keywords = ("image", "C++", "new york")
    assert reason("Draw an Image of a cat", keywords=keywords) == "keyword"
    assert reason("Write a program in C++ now", keywords=keywords) == "keyword"
    assert reason("Walk through New York today", keywords=keywords) == "keyword"
    assert reason("Define the word imagery please", keywords=keywords) is None
    assert reason("Draw an image of a cat") is None


def test_bounds_are_inclusive():
    assert reason("one two three", min_words=3) is None
    assert reason("one two three", max_words=3) is None
    # Trigrams: "a b a" is followed by "b a b", "a b a", "b a b": half of the four are repeats.
    assert reason("a b a b a b", max_repetition=0.5) is None
    assert reason("a b a b a b", max_repetition=0.49) == "repetition"


@given(st.text())
def test_any_text_has_an_answer(text):
    assert reason(text) is None or isinstance(reason(text), str)
