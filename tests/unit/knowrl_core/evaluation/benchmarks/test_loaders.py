"""Every benchmark, from small files in its authors' shape."""

import json
from collections import Counter
from typing import get_args

import pytest

from knowrl_core.config.learning import BenchmarkName
from knowrl_core.errors import InputError
from knowrl_core.evaluation import BENCHMARKS, find_benchmark
from knowrl_core.evaluation.benchmarks import BenchmarkTask

Y, N = "feasible", "infeasible"


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(name, path, left_out=None):
    return list(find_benchmark(name).load(path, Counter() if left_out is None else left_out))


def test_registry_and_config_agree():
    assert set(BENCHMARKS) == set(get_args(BenchmarkName))
    for name, benchmark in BENCHMARKS.items():
        assert name == benchmark.name
        assert all((benchmark.title, benchmark.truth, benchmark.size, benchmark.licence, benchmark.citation))
        assert benchmark.url
        assert benchmark.files


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"unknown benchmark 'selfawre'(.|\n)*selfaware, kuq"):
        find_benchmark("selfawre")


def test_selfaware(tmp_path):
    file = tmp_path / "SelfAware.json"
    rows = [
        {"question_id": 1, "question": "Who wrote Emma?", "answer": ["Austen"], "answerable": True, "source": "squad"},
        {
            "question_id": 2,
            "question": " What is it like? ",
            "answer": None,
            "answerable": False,
            "source": "SelfAware",
        },
    ]
    file.write_text(json.dumps({"dataset_name": "SelfAware", "license": "x", "keywords": ["a", "b"], "example": rows}))
    expected = [
        BenchmarkTask("1", "Who wrote Emma?", Y, source="squad"),
        BenchmarkTask("2", "What is it like?", N, source="SelfAware"),
    ]
    assert load("selfaware", file) == load("selfaware", tmp_path) == expected


def test_kuq(tmp_path):
    file = lines(
        tmp_path / "knowns_unknowns.jsonl",
        [
            {"question": "Why?", "answer": ["?"], "unknown": True, "source": "turk", "category": "future unknown"},
            {"question": "Who?", "answer": ["me"], "unknown": False, "source": "hotpot", "category": None},
        ],
    )
    first, second = load("kuq", file)
    assert (first.task, first.label, first.category, first.source) == ("Why?", N, "future unknown", "turk")
    assert (second.label, second.category) == (Y, "")
    assert first.id.startswith("knowns_unknowns-00000-")
    assert load("kuq", file) == [first, second]


def test_ids_without_ids_tell_a_changed_text(tmp_path):
    row = {"question": "Why?", "answer": [], "unknown": True, "source": "", "category": ""}
    ids = [
        load("kuq", lines(tmp_path / "knowns_unknowns.jsonl", [row | {"question": text}, row])) for text in ("A?", "B?")
    ]
    assert ids[0][0].id != ids[1][0].id
    assert ids[0][1].id == ids[1][1].id


@pytest.mark.parametrize(("name", "stem"), [("falseqa", "FalseQA"), ("nec", "NEC"), ("refunq", "RefuNQ")])
def test_unknownbench(tmp_path, name, stem):
    folder = tmp_path / stem  # as in the authors' repository: data/NEC/NEC_answerable.json
    folder.mkdir()
    more = {"category": "animals"} if name == "nec" else {}
    lines(folder / f"{stem}_answerable.json", [{"prompt": "How do cats purr?", "label": 0} | more])
    lines(folder / f"{stem}_unanswerable.json", [{"prompt": "How do zorps purr?", "label": 1} | more] * 2)
    tasks = load(name, tmp_path)
    assert [(t.task, t.label, t.category) for t in tasks] == [
        ("How do cats purr?", Y, more.get("category", "")),
        ("How do zorps purr?", N, more.get("category", "")),
        ("How do zorps purr?", N, more.get("category", "")),
    ]
    assert [t.source for t in tasks] == [f"{stem}_answerable"] + [f"{stem}_unanswerable"] * 2
    assert len({t.id for t in tasks}) == 3
    assert load(name, folder / f"{stem}_answerable.json") == tasks[:1]
    (folder / f"{stem}_unanswerable.json").unlink()
    with pytest.raises(InputError, match=f"without {stem}_unanswerable.json"):
        load(name, tmp_path)


def test_line_of_duty_and_its_agreed_rows(tmp_path):
    row = {
        "id": "a.xlsx:1", "task": "Sing.", "model": "gpt", "generated_as": N, "classified_as": N,
        "self_knowledge_type": "Functional Ceiling", "infeasible_reason": "x", "prompt_style": "vanilla",
    }  # fmt: skip
    rows = [
        row,
        row | {"id": "a.xlsx:2", "generated_as": Y, "classified_as": Y, "infeasible_reason": None},
        row | {"id": "a.xlsx:3", "classified_as": Y},
    ]
    file = lines(tmp_path / "tasks.jsonl", rows)
    every = load("lineofduty", file)
    assert [(t.id, t.label) for t in every] == [("a.xlsx:1", N), ("a.xlsx:2", Y), ("a.xlsx:3", N)]
    assert (every[0].category, every[0].source) == ("Functional Ceiling", "gpt")
    left_out = Counter()
    assert load("lineofduty_agreed", file, left_out) == every[:2]
    assert left_out == {"its author classified it the other way": 1}


def test_known_unknowns(tmp_path):
    examples = [
        {"input": "What is 2 + 2?", "target_scores": {"4": 1, "Unknown": 0}},
        {"input": "What did I eat?", "target_scores": {"Soup": 0, "Unknown": 1}},
    ]
    document = {"canary": "x", "name": "known_unknowns", "metrics": ["m"], "examples": examples, "more": {"a": [1]}}
    (tmp_path / "task.json").write_text(json.dumps(document, indent=4))
    assert [(t.task, t.label) for t in load("known_unknowns", tmp_path)] == [
        ("What is 2 + 2?", Y), ("What did I eat?", N),
    ]  # fmt: skip


@pytest.mark.parametrize("scores", [{"4": 1}, {"Unknown": 0.5}, None, [1], {"Unknown": "1"}])
def test_known_unknowns_needs_a_score_for_unknown(tmp_path, scores):
    (tmp_path / "task.json").write_text(json.dumps({"examples": [{"input": "Why?", "target_scores": scores}]}))
    with pytest.raises(InputError, match=r"task.json:1: examples\[0\]: field 'target_scores': got .*'Unknown'"):
        load("known_unknowns", tmp_path)


def test_coconot_takes_its_labels_from_the_files(tmp_path):
    row = {
        "id": "7",
        "category": "False presuppositions",
        "subcategory": "s",
        "prompt": "When did it end?",
        "response": "",
    }
    lines(tmp_path / "original_test.jsonl", [row])
    lines(tmp_path / "contrast_test.jsonl", [row])
    tasks = load("coconot", tmp_path)
    assert [(t.id, t.label) for t in tasks] == [("original_test/7", N), ("contrast_test/7", Y)]
    assert (tasks[0].category, tasks[0].source) == ("False presuppositions", "s")
    other = lines(tmp_path / "mine.jsonl", [row])
    with pytest.raises(InputError, match="the name tells the label"):
        load("coconot", other)


def test_built_in_sets():
    probe, paired = load("probe", None), load("paired", None)
    for tasks, least in ((probe, 60), (paired, 120)):
        labels = Counter(task.label for task in tasks)
        assert labels[Y] == labels[N] >= least
    assert all(task.category for task in probe)
    assert set(Counter(task.pair for task in paired).values()) == {2}


def test_ones_own_tasks_in_the_seeds_shape(tmp_path):
    file = lines(tmp_path / "own.jsonl", [{"id": "a", "task": "Sing.", "label": N}])
    assert load("probe", file) == [BenchmarkTask("a", "Sing.", N)]
    with pytest.raises(InputError, match="task 'a': field 'pair': missing"):
        load("paired", file)
    lines(file, [{"id": x, "task": x, "label": N, "pair": "p"} for x in "ab"])
    with pytest.raises(InputError, match="pair 'p': got a, b, expected one feasible and one infeasible"):
        load("paired", file)
