import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.introspection.similarity import ExactIndex, Match, rouge_l_f1
from knowrl_core.seeds.duplicates import words

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=12)
VOCABULARY = ["the", "cat", "sat", "on", "a", "mat", "and", "ate", "rats", ".", "?"]
TEXTS = st.lists(st.sampled_from(VOCABULARY), max_size=10).map(" ".join)


def by_table(first, second):
    """ROUGE-L F1 by the textbook dynamic program."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    longest = table[-1][-1]
    if not longest:
        return 0.0
    precision, recall = longest / len(second), longest / len(first)
    return 2 * precision * recall / (precision + recall)


def test_by_hand():
    # Common subsequence "police the gunman": 3 of 4 and 3 of 4 words.
    assert rouge_l_f1(["police", "killed", "the", "gunman"], ["police", "kill", "the", "gunman"]) == 0.75
    assert rouge_l_f1(["a"], []) == 0.0


@given(WORDS, WORDS)
def test_equals_the_textbook_program(first, second):
    assert rouge_l_f1(first, second) == pytest.approx(by_table(first, second), abs=1e-12)
    assert rouge_l_f1(first, second) == rouge_l_f1(second, first)


@given(st.lists(TEXTS, max_size=8), TEXTS, st.sampled_from([0.1, 0.3, 0.5, 0.7, 2 / 3, 0.8, 1.0]))
def test_index_decides_as_all_pairs_do(stored, text, bar):
    index = ExactIndex()
    best = None
    for place, other in enumerate(stored):
        index.add(str(place), other)
        score = rouge_l_f1(words(text), words(other))
        if score >= bar and (best is None or score > best.similarity):
            best = Match(str(place), score)
    assert index.nearest(text, bar) == best
    assert len(index) == len(stored)


def test_case_and_punctuation_do_not_matter():
    index = ExactIndex()
    index.add("a", "Name a river!")
    assert index.nearest("name A RIVER", 1.0) == Match("a", 1.0)
    assert index.nearest("name a lake", 0.7) is None
    assert ExactIndex().nearest("name", 0.1) is None
