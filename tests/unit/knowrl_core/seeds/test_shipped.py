"""The files that ship hold to what their README promises."""

import re
from collections import Counter
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from rapidfuzz import fuzz, process
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from knowrl_core.labels import LABELS
from knowrl_core.seeds import check_files, load_seed_file, load_seeds
from knowrl_core.seeds.duplicates import near_duplicates, words
from knowrl_core.seeds.model import RECOMMENDED
from knowrl_core.seeds.surface import KINDS, classifier, surface_score

FOLDER = Path(__file__).parents[4] / "seeds"
FILES = [FOLDER / name for name in ("feasible.jsonl", "infeasible.jsonl", "probe.jsonl")]
SEEDS = load_seeds(*FILES[:2])
PROBE = load_seed_file(FILES[2])
SETS = pytest.mark.parametrize("tasks", [SEEDS, PROBE, SEEDS + PROBE], ids=["seeds", "probe", "all"])
SURFACE_BAR = 0.6

PAIRED = load_seed_file(FOLDER / "paired.jsonl")
TWINS = list(
    zip(*(sorted((t for t in PAIRED if t.label == label), key=lambda t: t.pair) for label in LABELS), strict=True)
)


def by_label(tasks):
    return [[t for t in tasks if t.label == label] for label in LABELS]


def test_there_are_as_many_as_promised():
    assert [len(part) for part in by_label(SEEDS)] == [50, 50]
    assert [len(part) for part in by_label(PROBE)] == [66, 66]


def test_the_checker_has_nothing_to_say():
    assert check_files(FILES, ["feasible", "infeasible", None]).problems == []


def test_every_field_is_filled_and_known():
    for task in SEEDS + PROBE:
        assert all(getattr(task, name) for name in RECOMMENDED)
        assert task.reason.endswith((".", ")"))
        assert (task.form == "question") == task.task.endswith("?")
        assert task.label == "feasible" or task.limit != "none"
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for task in SEEDS + PROBE:
        assert f"| `{task.limit}` |" in readme
        assert f"| `{task.self_knowledge}` |" in readme


def test_the_counts_in_the_readme_are_true():
    columns = [*by_label(SEEDS), *by_label(PROBE)]
    for field in ("limit", "self_knowledge"):
        for kind in {getattr(t, field) for t in SEEDS + PROBE}:
            counts = [sum(getattr(t, field) == kind for t in part) for part in columns]
            row = f"| `{kind}` | " + " | ".join(map(str, counts)) + " |"
            assert row in (FOLDER / "README.md").read_text(encoding="utf-8")


@SETS
def test_forms_are_shared_equally(tasks):
    for part in by_label(tasks):
        assert Counter(t.form for t in part) == {"instruction": len(part) // 2, "question": len(part) // 2}


@SETS
def test_lengths_are_alike(tasks):
    yes, no = ([len(words(t.task)) for t in part] for part in by_label(tasks))
    assert mean(yes) == pytest.approx(mean(no), rel=0.05)
    assert np.abs(np.quantile(yes, [0.25, 0.5, 0.75]) - np.quantile(no, [0.25, 0.5, 0.75])).max() <= 2


@SETS
def test_opening_words_are_shared(tasks):
    yes, no = (Counter(words(t.task)[0] for t in part) for part in by_label(tasks))
    assert all(abs(yes[word] - no[word]) <= 3 for word in yes | no)


@pytest.mark.parametrize(
    "cue",
    [r"\d", r"\b(i|me|my|mine|we|our|us)\b", r"\b(today|tonight|tomorrow|now|last|next|yesterday|week)\b", r"\byou",
     r"\b(all|every|each)\b", r"\bexact", r"\bwill\b", ":", ",", "'"],
)  # fmt: skip
def test_no_cue_belongs_to_one_label(cue):
    yes, no = (sum(bool(re.search(cue, t.task.lower())) for t in part) for part in by_label(SEEDS + PROBE))
    assert min(yes, no) >= 0.5 * max(yes, no)


def test_no_two_tasks_are_near_duplicates():
    texts = [t.task for t in SEEDS + PROBE]
    assert list(near_duplicates(texts, 0.7, 0.7)) == []
    joined = [" ".join(words(text)) for text in texts]
    ratios = process.cdist(joined, joined, scorer=fuzz.token_set_ratio)
    np.fill_diagonal(ratios, 0)
    assert ratios.max() < 75


@SETS
@pytest.mark.parametrize("kind", KINDS)
def test_the_surface_does_not_give_the_label_away(tasks, kind):
    score = surface_score(kind, [t.task for t in tasks], [t.label for t in tasks], [t.id for t in tasks])
    assert score <= SURFACE_BAR


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("train", "test"), [(SEEDS, PROBE), (PROBE, SEEDS)], ids=["seeds-probe", "probe-seeds"])
def test_what_the_surface_of_one_set_teaches_does_not_help_in_the_other(train, test, kind):
    # Counterparts within a set push cross-validation below chance; between the sets nothing does.
    x, y = (np.array([t.task for t in part], dtype=object) for part in (train, test))
    guesses = classifier(kind).fit(x, [t.label for t in train]).predict(y)
    assert 1 - SURFACE_BAR <= balanced_accuracy_score([t.label for t in test], guesses) <= SURFACE_BAR


def test_each_pair_has_a_task_of_each_label():
    assert len(TWINS) == 150
    assert set(Counter(t.pair for t in PAIRED).values()) == {2}
    for twins in TWINS:
        assert len({t.pair for t in twins}) == 1
        assert {t.id for t in twins} == {twins[0].pair.replace("pair", "q") + end for end in ("-f", "-i")}
        assert {t.label: t.id[-1] for t in twins} == {label: label[0] for label in LABELS}


def test_every_field_of_a_pair_is_filled_and_known():
    kinds = {(t.limit, t.self_knowledge) for t in SEEDS + PROBE}
    for task in PAIRED:
        assert all(getattr(task, name) for name in RECOMMENDED)
        assert task.reason.endswith((".", ")"))
        assert (task.form == "question") == task.task.endswith("?")
        assert task.limit != "none"
        assert (task.limit, task.self_knowledge) in kinds


def test_twins_differ_in_little_but_the_label():
    for twins in TWINS:
        assert len({t.form for t in twins}) == 1
        assert len({t.limit for t in twins}) == 1
        sizes = [len(words(t.task)) for t in twins]
        assert abs(sizes[0] - sizes[1]) <= 2
    shared = [max(n.rouge_l for n in near_duplicates([t.task for t in twins], 0.0, 0.0)) for twins in TWINS]
    assert min(shared) >= 0.5
    assert np.median(shared) >= 0.8


def test_every_kind_of_limit_has_pairs_as_the_readme_counts_them():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    kinds = Counter(yes.limit for yes, _ in TWINS)
    forms = Counter((yes.limit, yes.form) for yes, _ in TWINS)
    assert len(kinds) == 12
    for kind, count in kinds.items():
        asked = forms[kind, "question"]
        assert min(asked, count - asked) >= 5
        assert f"| `{kind}` | {count} | {asked} | {count - asked} |" in readme
    asked = sum(yes.form == "question" for yes, _ in TWINS)
    assert asked == len(TWINS) // 2
    assert f"| all | {len(TWINS)} | {asked} | {len(TWINS) - asked} |" in readme


def test_pairs_repeat_neither_each_other_nor_the_seeds_nor_the_probe():
    tasks = PAIRED + SEEDS + PROBE
    for near in near_duplicates([t.task for t in tasks], 0.7, 0.7):
        first, second = tasks[near.first], tasks[near.second]
        assert first.pair
        assert first.pair == second.pair
    assert len({t.id for t in tasks}) == len(tasks)
    files = [*FILES, FOLDER / "paired.jsonl"]
    assert check_files(files, ["feasible", "infeasible", None, None]).problems == []
    assert check_files(files[3:]).problems == []


@pytest.mark.parametrize(
    "cue",
    [r"\d", r"\b(i|me|my|mine|we|our|us)\b", r"\b(today|tonight|tomorrow|now|last|next|yesterday|week)\b", r"\byou",
     r"\bif\b", r"\bwill\b", ":", ",", "'"],
)  # fmt: skip
def test_a_cue_stands_about_as_often_in_either_twin(cue):
    with_cue = [sum(bool(re.search(cue, t.task.lower())) for t in part) for part in zip(*TWINS, strict=True)]
    assert min(with_cue) >= 0.75 * max(with_cue)


def test_no_word_decides_in_many_pairs():
    lead = Counter()
    for yes, no in TWINS:
        used = [set(re.findall(r"\w+|[^\w\s]", t.task.lower())) for t in (yes, no)]
        lead.update(used[0] - used[1])
        lead.subtract(used[1] - used[0])
    assert max(map(abs, lead.values())) <= 6


def ends(place):
    """Return an analyzer that sees two words from an end of a task, and both together."""
    return lambda text: [*words(text)[place], " ".join(words(text)[place])]


def plain(features):
    return make_pipeline(features, LogisticRegression(solver="liblinear", class_weight="balanced"))


SURFACES = {
    "words-pairs": lambda: plain(TfidfVectorizer(ngram_range=(1, 2))),
    "words-signs": lambda: plain(TfidfVectorizer(token_pattern=r"\w+|[^\w\s]")),
    "characters": lambda: plain(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5))),
    "first-two": lambda: plain(CountVectorizer(analyzer=ends(slice(0, 2)), binary=True)),
    "last-two": lambda: plain(CountVectorizer(analyzer=ends(slice(-2, None)), binary=True)),
    **{kind: lambda kind=kind: classifier(kind) for kind in KINDS},
}


@pytest.mark.parametrize("kind", SURFACES)
def test_the_surface_does_not_tell_twins_apart(kind):
    texts, labels, pairs = (
        np.array([getattr(t, name) for t in PAIRED], dtype=object) for name in ("task", "label", "pair")
    )
    scores = []
    for seed in range(3):
        guesses = np.empty_like(labels)
        for train, test in GroupKFold(5, shuffle=True, random_state=seed).split(texts, labels, pairs):
            guesses[test] = SURFACES[kind]().fit(texts[train], list(labels[train])).predict(texts[test])
        scores.append(balanced_accuracy_score(list(labels), list(guesses)))
    # Twins are kept in one fold, so that chance is 0.5; far below it, a cue would give the label away all the same.
    assert 1 - SURFACE_BAR <= mean(scores) <= SURFACE_BAR
    assert max(scores) <= SURFACE_BAR


@pytest.mark.parametrize("kind", SURFACES)
def test_what_the_surface_of_the_seeds_teaches_does_not_help_with_pairs(kind):
    x, y = ([getattr(t, name) for t in SEEDS + PROBE] for name in ("task", "label"))
    guesses = (
        SURFACES[kind]().fit(np.array(x, dtype=object), y).predict(np.array([t.task for t in PAIRED], dtype=object))
    )
    assert 1 - SURFACE_BAR <= balanced_accuracy_score([t.label for t in PAIRED], guesses) <= SURFACE_BAR
