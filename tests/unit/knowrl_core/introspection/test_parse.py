import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.introspection.parse import clean, parse_list

TWO = ["Write a poem.", "Name a river."]


def texts(text, *, prefilled=False, finish_reason="stop"):
    return [item.text for item in parse_list(text, prefilled=prefilled, finish_reason=finish_reason)]


@pytest.mark.parametrize(
    "text",
    [
        "1. Write a poem.\n2. Name a river.",
        "1) Write a poem.\n2) Name a river.",
        "(1) Write a poem.\n(2) Name a river.",
        "**1.** Write a poem.\n**2.** Name a river.",
        "**1. Write a poem.**\n**2. Name a river.**",
        "**1**. Write a poem.\n**2**. Name a river.",
        "### 1. Write a poem.\n### 2. Name a river.",
        "#1. Write a poem.\n#2. Name a river.",
        "1: Write a poem.\n2: Name a river.",
        "1 - Write a poem.\n2 - Name a river.",
        "1.Write a poem.\n2.Name a river.",
        "- Write a poem.\n- Name a river.",
        "* Write a poem.\n* Name a river.",
        "• Write a poem.\n• Name a river.",
        "  1. Write a poem.\n  2. Name a river.",
        "Sure! Here are two tasks:\n\n1. Write a poem.\n2. Name a river.\n\nI hope these help!",
        '1. "Write a poem."\n2. “Name a river.”',
        "1. Task: Write a poem.\n2. **Task:** Name a river.",
        "Task 1: Write a poem.\nTask 2: Name a river.",
        "1. Instruction 1: Write a poem.\n2. Question: Name a river.",
        "1. Write\n   a poem.\n2. Name a\nriver.",
        "1.\nWrite a poem.\n\n2.\n\nName a river.",
        "1. Write a poem.\n1. Name a river.",
        "7. Write a poem.\n3. Name a river.",
        "１．Write a poem.\n２．Name a river.",  # noqa: RUF001
        "\u0661. Write a poem.\n\u0662. Name a river.",
        "1. Write a poem.\r\n2. Name a river.\r\n",
        "1. Write a poem.\nAnswer: Roses are red.\n2. Name a river.\n   - Answer: Rhine",
        "1. Write a poem.\n\nExplanation: I can.\n\n2. Name a river.",
        "1. *Write a poem.*\n2. `Name a river.`",
    ],
)
def test_forms_of_lists(text):
    assert texts(text) == TWO


def test_the_first_item_may_be_prefilled():
    assert texts(" Write a poem.\n10. Name a river.", prefilled=True) == TWO
    assert texts(" Write a poem.\n- Name a river.", prefilled=True) == TWO
    assert texts(" Write a poem.", prefilled=True) == TWO[:1]
    assert texts("\nWrite a poem.\n10. Name a river.", prefilled=True) == TWO


def test_bullets_and_numbers_inside_an_item_belong_to_it():
    assert texts("1. Sort these:\n- pear\n- apple\n2. Name a river.") == ["Sort these: - pear - apple", "Name a river."]
    assert texts("1. Sort these:\n   1. pear\n   2. apple\n2. Name a river.") == [
        "Sort these: 1. pear 2. apple",
        "Name a river.",
    ]


def test_numbers_that_are_no_marks_stay():
    assert texts("1. What is 3.5 plus\n2.5 and 1?\n2. It is\n12:30 now.") == [
        "What is 3.5 plus 2.5 and 1?",
        "It is 12:30 now.",
    ]
    assert clean("Compute 2**3 and 4**5.") == "Compute 2**3 and 4**5."
    assert clean("Use **bold** words.") == "Use bold words."
    assert clean("'a' or 'b'") == "'a' or 'b'"


def test_no_list_gives_no_items():
    assert texts("") == []
    assert texts("I cannot do that.") == []
    assert [item.text for item in parse_list("", prefilled=True, finish_reason="stop")] == [""]


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("1. Write a poem.\n2. Name a riv", [True, False]),
        ("1. Write a poem.\n2. Name a river.\n", [True, True]),
        ("1. Write a poem.\n2.", [True, False]),
        ("1. Write a poem.\n2. Name a river.\n\nThese tasks are", [True, True]),
    ],
)
def test_a_cut_response_has_an_incomplete_last_item(text, complete):
    cut = parse_list(text, prefilled=False, finish_reason="length")
    assert [item.complete for item in cut] == complete
    assert all(item.complete for item in parse_list(text, prefilled=False, finish_reason="stop"))


@given(st.text(), st.booleans(), st.sampled_from(["stop", "length"]))
def test_never_raises_and_gives_storable_folded_text(text, prefilled, finish_reason):
    for item in parse_list(text, prefilled=prefilled, finish_reason=finish_reason):
        item.text.encode("utf-8")
        assert item.text == " ".join(item.text.split())


MARKS = st.sampled_from(
    ["1.", "2)", "-", "*", "**3.**", "#", " ", "\n", "\n\n", '"', "Task:", "Answer:", "word", "٣.", "\t", "(", "\ud800"]
)


@given(st.lists(MARKS).map("".join), st.booleans(), st.sampled_from(["stop", "length"]))
def test_never_raises_on_pieces_of_lists(text, prefilled, finish_reason):
    for item in parse_list(text, prefilled=prefilled, finish_reason=finish_reason):
        item.text.encode("utf-8")


WORDS = st.lists(st.text("bcdfgho", min_size=1, max_size=8), min_size=1, max_size=8).map(" ".join)


@given(
    st.lists(WORDS, min_size=1, max_size=12), st.integers(1, 90), st.sampled_from(["{}. ", "{}) ", "**{}.** ", "({}) "])
)
def test_a_written_list_is_read_back(tasks, first, mark):
    text = "\n".join(mark.format(first + place) + task for place, task in enumerate(tasks))
    assert texts(text) == tasks
