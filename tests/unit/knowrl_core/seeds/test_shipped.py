"""The files that ship hold to what their README promises."""

import re
from collections import Counter
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from rapidfuzz import fuzz, process
from sklearn.metrics import balanced_accuracy_score

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
