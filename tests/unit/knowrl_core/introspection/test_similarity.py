import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from knowrl_core.introspection import pairs, similarity
from knowrl_core.introspection.bounds import Bounds
from knowrl_core.introspection.similarity import Match, WordIndex
from knowrl_core.seeds.duplicates import words

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=12)
VOCABULARY = ["the", "cat", "sat", "on", "a", "mat", "and", "ate", "rats", ".", "?", "Straße", "ночь", "夜空", "हिन्दी"]
TEXTS = st.lists(st.sampled_from(VOCABULARY), max_size=10).map(" ".join)
# Long enough for single words instead of pairs.
LONG_TEXTS = st.lists(st.integers(0, 30).map(lambda n: f"w{n * n // 30}"), max_size=90).map(" ".join)
BARS = st.floats(0, 1, exclude_min=True) | st.sampled_from([0.1, 0.3, 0.5, 0.7, 2 / 3, 0.8, 1.0])
# Tasks without a segment, and the price of a lookup; 0 always looks up.
SMALL = st.tuples(st.sampled_from([1, 3, 1_000]), st.sampled_from([0, 1]))


def rouge_l_f1(first, second):
    """The definition, on words."""
    return 2 * LCSseq.similarity(first, second) / (len(first) + len(second)) if first and second else 0.0


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


def by_all_pairs(stored, text, bar):
    best = None
    for place, other in enumerate(stored):
        score = rouge_l_f1(words(text), words(other))
        if score >= bar and (best is None or score > best.similarity):
            best = Match(str(place), score)
    return best


def index_of(texts):
    index = WordIndex()
    for place, text in enumerate(texts):
        index.add(str(place), text)
    return index


def shrink(patch, recent, lookup_cost=0):
    """Make segments of few tasks, and look up whatever that costs."""
    patch.setattr(similarity, "RECENT", recent)
    patch.setattr(pairs, "LOOKUP_COST", lookup_cost)


def test_by_hand():
    # Common subsequence "police the gunman": 3 of 4 and 3 of 4 words.
    assert index_of(["police kill the gunman"]).nearest("police killed the gunman", 0.7) == Match("0", 0.75)
    assert index_of(["police kill the gunman"]).nearest("police killed the gunman", 0.76) is None


@given(WORDS, WORDS)
def test_the_reference_equals_the_textbook_program(first, second):
    assert rouge_l_f1(first, second) == pytest.approx(by_table(first, second), abs=1e-12)
    assert rouge_l_f1(first, second) == rouge_l_f1(second, first)


@given(st.lists(TEXTS, max_size=12), st.lists(TEXTS, min_size=1, max_size=4), st.integers(0, 4), BARS, SMALL)
@settings(max_examples=200, deadline=None)
def test_decides_as_all_pairs_do(stored, texts, expected, bar, small):
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, *small)
        index = index_of(stored)
        index.expect(texts[:expected], bar)
        for text in texts:
            assert index.nearest(text, bar) == by_all_pairs(stored, text, bar)
    assert len(index) == len(stored)


@given(st.lists(LONG_TEXTS, max_size=8), LONG_TEXTS, st.floats(0.2, 1), st.integers(0, 6), SMALL)
@settings(max_examples=100, deadline=None)
def test_decides_on_long_texts_as_all_pairs_do(stored, text, bar, cut, small):
    stored = [*stored, " ".join(text.split()[cut:]), " ".join(text.split()[: -cut or None])]
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, *small)
        assert index_of(stored).nearest(text, bar) == by_all_pairs(stored, text, bar)


@given(st.lists(st.tuples(TEXTS, st.sampled_from([0.4, 0.7, 0.7, 0.7, 1.0])), max_size=20), st.integers(1, 20), SMALL)
@settings(deadline=None)
def test_stores_and_searches_in_turns_with_any_bar(steps, ahead, small):
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, *small)
        index, stored = WordIndex(), []
        for place, (text, bar) in enumerate(steps):
            if place % ahead == 0:
                index.expect([text for text, _ in steps[place : place + ahead]], 0.7)
            assert index.nearest(text, bar) == by_all_pairs(stored, text, bar)
            index.add(str(len(stored)), text)
            stored.append(text)


@given(BARS, st.integers(1, 40), st.integers(1, 40))
def test_bounds_are_those_of_the_comparison(bar, first, second):
    matching = [common for common in range(1, 41) if 2 * common / (first + second) >= bar]
    assert Bounds(bar).need(first + second)[first + second] == matching[0]
    shortest = Bounds(bar).shortest(first)
    assert 2 * shortest / (first + shortest) >= bar
    assert shortest == 1 or 2 * (shortest - 1) / (first + shortest - 1) < bar


@pytest.mark.parametrize("recent", [1, 4, 1_000])
def test_the_first_stored_among_equals(monkeypatch, recent):
    shrink(monkeypatch, recent)
    index = index_of(["name a lake", "name a river", "Name a river!", "name a big river", "name a river"])
    assert index.nearest("name a river", 0.7) == Match("1", 1.0)
    assert index.nearest("name a sea", 0.6) == Match("0", 2 / 3)


@pytest.mark.parametrize("recent", [1, 1_000])
def test_case_signs_and_texts_without_words(monkeypatch, recent):
    shrink(monkeypatch, recent)
    index = index_of(["Name a river!", "", "   ", "? !", "STRASSE 7", "写一个故事", "no no no no"])
    assert index.nearest("name A RIVER", 1.0) == Match("0", 1.0)
    assert index.nearest("name a lake", 0.7) is None
    assert index.nearest("", 0.1) is None
    assert index.nearest("?!", 1.0) == Match("3", 1.0)
    assert index.nearest("straße 7", 1.0) == Match("4", 1.0)
    assert index.nearest("写一个故事。", 0.7) == Match("5", 1.0)
    assert index.nearest("no no no", 0.7) == Match("6", 6 / 7)
    assert index.nearest("no", 0.7) is None
    assert WordIndex().nearest("name", 0.1) is None
    index = index_of([""] * 9)
    assert index.nearest("name", 0.1) is None
    index.add("9", "name")
    assert index.nearest("name", 0.1) == Match("9", 1.0)
    assert index.nearest("lake", 0.1) is None


def template_tasks(number):
    """Tasks that share their beginnings, near-copies of earlier ones, short, long and repetitive ones."""
    rng = random.Random(5)  # noqa: S311
    openings = ["write a short story about a", "what did i say to my", "turn off the", "name a", "how many"]
    parts = ["{} and the {}", "in the {} of {}", "who saw the {}", "without the word {}", "{}", "{} {} {}", "夜空{}"]
    texts = []
    while len(texts) < number:
        text = rng.choice(openings) if rng.random() < 0.9 else ""
        for _ in range(rng.choice([1, 1, 2, 2, 3, 3, 4, 30])):
            part = rng.choice(parts)
            text += " " + part.format(*(f"n{int(2_000 * rng.random() ** 3)}" for _ in range(part.count("{}"))))
        if texts and rng.random() < 0.2:
            copy = rng.choice(texts).split()
            for _ in range(rng.randint(0, 3)):
                copy[rng.randrange(len(copy))] = rng.choice(["", "the", "n7", "ночью"])
            text = " ".join(copy)
        texts.append(text.strip() or "!")
    return texts


def test_thousands_of_template_like_tasks(monkeypatch):
    shrink(monkeypatch, 200, lookup_cost=2)
    texts = template_tasks(2_000)
    codes = {}
    coded = ["".join(codes.setdefault(word, chr(0xE000 + len(codes))) for word in words(text)) for text in texts]
    sizes = np.array([len(row) for row in coded])
    scores = 2 * process.cdist(coded, coded, scorer=LCSseq.similarity, dtype=np.int32) / (sizes[:, None] + sizes)
    index, kept, dropped = WordIndex(), np.zeros(len(texts), dtype=bool), 0
    for place, text in enumerate(texts):
        if place % 300 == 0:
            index.expect(texts[place : place + 200], 0.7)
        exact = np.where(kept, scores[place], 0.0)
        expected = Match(str(exact.argmax()), exact.max()) if exact.max() >= 0.7 else None
        assert index.nearest(text, 0.7) == expected
        dropped += expected is not None
        if expected is None:
            index.add(str(place), text)
            kept[place] = True
    assert 300 < dropped < 1_500
