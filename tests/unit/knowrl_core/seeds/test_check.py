"""The checker finds what it should in files made to show it, and nothing in a fair one."""

import json
import random

import numpy as np
import pytest
from scipy import stats

from knowrl_core.seeds import check_files
from knowrl_core.seeds.duplicates import near_duplicates, words

NOUNS = [
    *("river", "lamp", "garden", "violin", "bridge", "teacher", "window", "castle"),
    *("mirror", "harbour", "candle", "forest", "ticket", "engine", "blanket"),
]
VERBS = ["describe", "compare", "paint", "follow", "measure", "remember", "collect", "repair", "answer", "borrow"]


def fair(n=60, seed=0):
    """Tasks whose label is drawn by lot: form can't give it away."""
    draw = random.Random(seed)  # noqa: S311
    labels = ["feasible", "infeasible"] * (n // 2)
    for place, label in enumerate(labels):
        text = " ".join([draw.choice(VERBS), *draw.sample(NOUNS, draw.randint(4, 7)), draw.choice(VERBS)])
        yield {"id": f"t{place}", "task": text, "label": label, "form": "instruction"}


def check(tmp_path, rows, **extra):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row | extra) + "\n" for row in rows), encoding="utf-8")
    return check_files([path])


def codes(report):
    return {p.code for p in report.problems}


NOTES = {"self_knowledge": "x", "limit": "x", "reason": "x", "provenance": "x"}


def test_a_fair_file_has_no_problem(tmp_path):
    report = check(tmp_path, fair(), **NOTES)
    assert not report.errors
    assert codes(report) <= {"near_duplicate"}
    assert report.files[0].labels == {"feasible": 30, "infeasible": 30}
    assert report.metrics["feasible_share"] == 0.5


def test_missing_notes_are_one_warning_a_field(tmp_path):
    report = check(tmp_path, fair())
    assert sum(p.code == "missing_note" for p in report.problems) == 4
    assert report.ok


def test_broken_rows_and_duplicates_are_errors_and_come_first(tmp_path):
    rows = [*fair(), {"id": "t0", "task": "Something else.", "label": "feasible"}, {"id": "x"}]
    report = check(tmp_path, rows)
    assert not report.ok
    assert {p.code for p in report.errors} == {"duplicate_id", "missing_field"}
    severities = [p.severity for p in report.problems]
    assert severities == sorted(severities)


def test_expected_labels_are_held(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "a", "task": "b", "label": "feasible"}))
    assert [p.code for p in check_files([path], ["infeasible"]).errors] == ["wrong_label"]


def test_near_duplicates_are_found_across_files_but_not_between_twins(tmp_path):
    row = {"id": "a", "task": "What did the Romans eat for breakfast in winter", "label": "feasible"}
    near = row | {"id": "b", "task": "What did the Romans eat for dinner in winter", "label": "infeasible"}
    files = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    for pair, expected in (("", ["near_duplicate"]), ("p1", [])):
        for file, value in zip(files, (row, near), strict=True):
            file.write_text(json.dumps(value | NOTES | {"form": "question", "pair": pair}))
        found = [p for p in check_files(files).problems if p.code == "near_duplicate"]
        assert [p.code for p in found] == expected
        if found:
            assert found[0].file == str(files[1])
            assert f"{files[0]}:1 (ROUGE-L 0.89" in found[0].message


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda row: row | {"task": row["task"] + " please now" * 3}, "length_imbalance"),
        (lambda row: row | {"task": "imagine " + row["task"]}, "opening_imbalance"),
        (lambda row: row | {"task": "imagine " + row["task"]}, "surface_opening"),
        (lambda row: row | {"task": row["task"] + " tomorrow"}, "surface_words"),
        (lambda row: row | {"task": row["task"] + " quite a lot longer than it was"}, "surface_length"),
        (lambda row: row | {"form": "question"}, "form_imbalance"),
    ],
)
def test_what_gives_the_label_away_is_a_warning(tmp_path, change, code):
    rows = [change(row) if row["label"] == "infeasible" else row for row in fair()]
    report = check(tmp_path, rows)
    assert code in codes(report)
    assert report.ok


def test_label_imbalance_and_too_few(tmp_path):
    rows = [row for row in fair() if row["label"] == "feasible" or int(row["id"][1:]) < 20]
    assert {"label_imbalance", "too_few"} <= codes(check(tmp_path, rows))


def test_length_figures_are_those_of_scipy(tmp_path):
    rows = list(fair(seed=3))
    metrics = check(tmp_path, rows).metrics
    yes, no = ([len(words(r["task"])) for r in rows if r["label"] == label] for label in ("feasible", "infeasible"))
    assert metrics["feasible_words"] == pytest.approx(np.mean(yes))
    assert metrics["length_p"] == pytest.approx(stats.mannwhitneyu(yes, no).pvalue)
    wins = np.sign(np.subtract.outer(yes, no)).mean()
    assert metrics["length_effect"] == pytest.approx(wins)


def test_near_duplicates_equal_the_plain_computation():
    texts = [row["task"] for row in fair(40, seed=1)]
    found = {(n.first, n.second): n for n in near_duplicates(texts, 0.3, 0.6)}
    for i, one in enumerate(texts):
        for j in range(i + 1, len(texts)):
            a, b = words(one), words(texts[j])
            lcs = np.zeros((len(a) + 1, len(b) + 1), int)
            for x, left in enumerate(a):
                for y, right in enumerate(b):
                    lcs[x + 1, y + 1] = lcs[x, y] + 1 if left == right else max(lcs[x, y + 1], lcs[x + 1, y])
            rouge = 2 * lcs[-1, -1] / (len(a) + len(b))
            shared = 2 * len(set(a) & set(b)) / (len(set(a)) + len(set(b)))
            assert ((i, j) in found) == (rouge >= 0.3 or shared >= 0.6)
            if (i, j) in found:
                assert found[i, j].rouge_l == pytest.approx(rouge if rouge >= 0.3 else 0, abs=1e-6)
                assert found[i, j].shared_words == pytest.approx(shared, abs=1e-6)


def test_the_same_words_in_another_order_are_found():
    (near,) = near_duplicates(["name the longest river in Spain", "in Spain, name the river: the longest"])
    assert near.rouge_l == 0
    assert near.shared_words == 1


def test_blocks_do_not_change_what_is_found(monkeypatch):
    texts = [row["task"] for row in fair(40, seed=2)]
    whole = list(near_duplicates(texts, 0.4, 0.6))
    monkeypatch.setattr("knowrl_core.seeds.duplicates._BLOCK", 7)
    assert list(near_duplicates(texts, 0.4, 0.6)) == whole
    assert whole


def test_the_report_is_json(tmp_path):
    report = check(tmp_path, [*fair(), {"id": "x"}]).to_dict()
    assert json.loads(json.dumps(report)) == report
    assert report["ok"] is False
    assert {"severity", "code", "file", "line", "message"} == set(report["problems"][0])


def test_one_pair_name_for_all_rows_is_no_obstacle(tmp_path):
    assert check(tmp_path, fair(), pair="same").ok


def test_signs_without_words_are_checked_as_well(tmp_path):
    rows = [{"id": f"s{i}", "task": "…" * (i + 1) + "∑", "label": ["feasible", "infeasible"][i % 2]} for i in range(60)]
    assert check(tmp_path, rows).ok
