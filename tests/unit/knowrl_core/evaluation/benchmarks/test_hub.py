"""Loading from the Hub, with the ``datasets`` package replaced: tests need no network."""

import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from knowrl_core.errors import InputError
from knowrl_core.evaluation import find_benchmark


def load(name):
    return list(find_benchmark(name).load(None, Counter()))


@pytest.fixture
def hub(monkeypatch):
    """Rows by (repo, config, split); calls are noted."""
    rows, calls = {}, []

    def load_dataset(repo, config=None, *, split, data_files=None):
        calls.append((repo, config, split, data_files))
        found = rows.get((config, split))
        if found is None:
            raise ConnectionError("Couldn't reach the Hub\nlong trace")
        return found

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return SimpleNamespace(rows=rows, calls=calls)


def test_coconot(hub):
    row = {"id": "1", "category": "c", "subcategory": "", "prompt": "Do it.", "response": "no"}
    hub.rows.update({("original", "test"): [row], ("contrast", "test"): [row]})
    assert [(t.id, t.label) for t in load("coconot")] == [
        ("original_test/1", "infeasible"), ("contrast_test/1", "feasible"),
    ]  # fmt: skip
    assert hub.calls[0] == ("allenai/coconot", "original", "test", None)


def test_kuq(hub):
    hub.rows[None, "train"] = [{"question": "Why?", "answer": [], "unknown": True, "source": None, "category": None}]
    assert load("kuq")[0].label == "infeasible"
    assert hub.calls == [("amayuelas/KUQ", None, "train", "knowns_unknowns.jsonl")]


def test_known_unknowns_has_other_columns_there(hub):
    row = {"inputs": "Why?", "multiple_choice_targets": ["4", "Unknown"], "multiple_choice_scores": [0, 1]}
    hub.rows.update({("known_unknowns", "train"): [row], ("known_unknowns", "validation"): [row | {"inputs": "Who?"}]})
    assert [(t.task, t.label) for t in load("known_unknowns")] == [("Why?", "infeasible"), ("Who?", "infeasible")]
    hub.rows["known_unknowns", "train"] = [row | {"multiple_choice_scores": [1]}]
    with pytest.raises(InputError, match=r"tasksource/bigbench/train\[0\]: field 'multiple_choice_scores'"):
        load("known_unknowns")


def test_offline(hub):
    with pytest.raises(
        InputError, match="kuq: amayuelas/KUQ cannot be read from the Hub: ConnectionError: Couldn't"
    ) as e:
        load("kuq")
    assert "--path" in e.value.hint
    assert "long trace" not in str(e.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="'datasets' is not installed") as caught:
        load("coconot")
    assert "knowrl[hub]" in caught.value.hint
    assert "original_test.jsonl" in caught.value.hint
