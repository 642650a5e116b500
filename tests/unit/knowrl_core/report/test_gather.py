"""The numbers of a report, against runs made by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from knowrl_core.config import build_config, load_config, profiles
from knowrl_core.errors import ArtifactError, InputError
from knowrl_core.report.around import config_text
from knowrl_core.report.charts import rules_of
from knowrl_core.report.gather import gather
from knowrl_core.report.read import read_run
from knowrl_core.report.reproduce import command, config_differences
from knowrl_core.report.rows import score_head, score_rows
from knowrl_core.report.write import make_report, write_report
from knowrl_core.storage.layout import (
    CONSENSUS,
    CONSENSUS_TABLE,
    EVALUATE,
    GENERATE,
    PREDICTIONS_TABLE,
    UPDATE,
    RunPaths,
    StageKey,
)
from knowrl_core.storage.run_file import ConfigChange, ForkedFrom


def one(paths, **options):
    return make_report([paths], **options).runs[0]


@pytest.fixture(scope="module")
def seen(collapsed):
    return one(collapsed.paths)


def test_scores_are_those_of_the_tables(seen):
    probe = seen.probe
    assert [item.name for item in seen.sets] == ["probe", "paired"]
    assert (probe.tasks, probe.headline, seen.iterations, seen.best, seen.last) == (
        40,
        "balanced_accuracy",
        [*range(5)],
        2,
        4,
    )
    assert probe.head.values == pytest.approx([0.5, 0.65, 0.85, 0.7, 0.5])
    assert probe.metrics["called_feasible"].values == pytest.approx([0.5, 0.45, 0.45, 0.7, 1.0])
    assert all(
        low <= value <= high
        for low, value, high in zip(probe.head.lower, probe.head.values, probe.head.upper, strict=True)
    )
    assert probe.controls == {"always_infeasible": 0.5, "always_feasible": 0.5, "tfidf": 0.7}
    assert seen.metric("update/reward/candidates") == [None, 0.6, 0.7, 0.8, 0.9]
    assert seen.metric("no/such") == [None] * 5


def test_flips_are_counted_task_by_task(seen):
    probe = seen.flips[0]
    # Feasible: 10 of 20 right before, 16 after; infeasible: 10 and 18. Nothing breaks.
    assert (seen.compared, probe.tasks, probe.mended, probe.broken) == (2, 40, 14, 0)
    assert probe.difference == pytest.approx(0.35)
    assert 0 < probe.lower < 0.35 < probe.upper
    assert probe.p == pytest.approx(2 * 0.5**14)
    assert probe.before == {
        "feasible": {"feasible": 10, "infeasible": 10, "unparseable": 0},
        "infeasible": {"feasible": 10, "infeasible": 10, "unparseable": 0},
    }
    assert probe.after["infeasible"] == {"feasible": 2, "infeasible": 18, "unparseable": 0}
    assert len(probe.mended_examples) == 8
    assert {(item.before == item.truth, item.after == item.truth) for item in probe.mended_examples} == {(False, True)}
    assert sum(kind.tasks for kind in probe.kinds) == 40
    assert sum(kind.right_after - kind.right_before for kind in probe.kinds) == 14


def test_what_became_of_tasks(seen):
    assert seen.filtered == {"kept": [12] * 5, "near_duplicate": [2, 3, 4, 5, 6], "too_short": [3] * 5}
    assert seen.gated == {"trained": [0, 8, 8, 8, 8], "class_balance": [0, 2, 2, 2, 2], "tie": [0, 2, 2, 2, 2]}


def test_the_verdict_says_what_happened(seen):
    told = " ".join(seen.verdict.sentences)
    assert (seen.verdict.headline, seen.verdict.tone, seen.state) == ("Learned, then collapsed", "bad", "stopped")
    assert "from 0.500 (base model) to 0.850 at iteration 2, the best of 4" in told
    assert "calls 100% of the probe feasible" in told
    assert "Reward rose from 0.600 (iteration 1) to 0.900 (iteration 4) while truth fell" in told
    assert "A guard stopped it after iteration 4 of 8" in told
    assert "above TF-IDF on wording alone on 1 of 1 set (probe)" in told


@pytest.mark.parametrize(
    ("truth", "headline"),
    [
        ([(0.5, 0.5)], "Base model only"),
        ([(0.5, 0.5), (0.9, 0.9)], "Better than the base model"),
        ([(0.5, 0.5), (0.55, 0.5)], "No gain that the probe can tell from chance"),
        ([(0.9, 0.9), (0.5, 0.5)], "Worse than the base model"),
        ([(0.9, 0.9), (0.0, 1.0)], "Collapsed"),
        ([(1.0, 0.0), (1.0, 0.0)], "Still one answer for nearly everything"),
    ],
)
def test_headlines(made, truth, headline):
    run = made(planned=len(truth) - 1)
    for number, right in enumerate(truth):
        run.iteration(number, right)
    found = one(run.end())
    assert found.verdict.headline == headline
    assert found.compared == (None if len(truth) == 1 else 1)


def test_a_run_in_progress(made):
    run = made()
    report = one(run.paths, state="running")
    assert (report.iterations, report.verdict.headline, report.flips) == ([], "Nothing measured yet", [])
    run.iteration(0, (0.5, 0.5), until=GENERATE)
    assert one(run.paths, state="running").sets == []
    other = made("other").iteration(0, (0.5, 0.5)).iteration(1, (0.9, 0.9)).iteration(2, (1.0, 1.0), until=UPDATE)
    report = one(other.paths, state="running")
    assert (report.iterations, report.last, report.best) == ([0, 1, 2], 1, 1)
    assert report.probe.head.values == [0.5, pytest.approx(0.9), None]
    assert "It is running: iteration 2 of 3." in report.verdict.sentences
    assert one(other.paths).state == "killed", "nobody holds it, and its attempt has no end"


def test_a_run_that_waits_for_others_is_not_complete(made):
    run = made(planned=3).iteration(0, (0.5, 0.5)).iteration(1, (0.9, 0.9)).iteration(2, (0.9, 0.9), until=GENERATE)
    found = one(run.end())
    assert found.state == "waiting"
    told = " ".join(found.verdict.sentences)
    assert "It waits for others to go on: iteration 2 of 3" in told
    assert "the best of 1 (" in told
    assert "complete" not in told


def test_a_set_that_is_missing_in_some_iterations(made):
    run = made(sets={"probe": 40, "kuq": 20}, planned=2)
    run.iteration(0, (0.5, 0.5), skip=("kuq",)).iteration(1, (0.8, 0.8)).iteration(2, (0.7, 0.7), skip=("kuq",))
    report = one(run.end())
    assert report.sets[1].head.values == [None, 0.8, None]
    assert [item.dataset for item in report.flips] == ["probe"], "iteration 0 was not asked kuq"


def test_a_warm_up_has_its_own_sentence(made):
    run = made(planned=2, settings=["warmup.epochs=1"])
    run.iteration(0, (0.5, 0.5)).iteration(1, (0.6, 0.7), warmup=True).iteration(2, (0.9, 0.9))
    report = one(run.end())
    assert report.warmup
    assert "The warm-up alone (iteration 1) reached 0.650." in report.verdict.sentences
    assert ("warm-up", 1) in {(item.kind, item.iteration) for item in report.events}


def test_forks_and_changes_are_events(made):
    run = made(planned=2)
    run.file.forked_from = ForkedFrom(run="first", run_id="1", at="001/update")
    for number in range(3):
        run.iteration(number, (0.5, 0.5 + 0.1 * number))
    run.file.changes.append(
        ConfigChange(at="2026-01-01T00:00:00+00:00", first_stage="002/generate", field="rl.kl_coef", old=0.0, new=0.1)
    )
    report = one(run.end())
    assert report.forked_from == "first at 001/update"
    assert [(item.kind, item.iteration) for item in report.events] == [("fork", 1), ("config", 2)]
    assert "rl.kl_coef: 0.0 → 0.1" in report.events[1].text


@pytest.mark.parametrize(
    ("key", "name"), [(StageKey(0, EVALUATE), PREDICTIONS_TABLE), (StageKey(1, CONSENSUS), CONSENSUS_TABLE)]
)
def test_an_altered_table_is_named(made, key, name):
    run = made(planned=1).iteration(0, (0.5, 0.5)).iteration(1, (0.8, 0.8))
    file = run.end() and run.paths.file(key, name)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match=rf"{name}: its content was altered"):
        one(run.paths)


def test_a_missing_stage_is_named(made):
    run = made(planned=1).iteration(0, (0.5, 0.5)).iteration(1, (0.8, 0.8))
    run.paths.stage(StageKey(1, GENERATE)).rename(run.paths.folder / "elsewhere")
    with pytest.raises(ArtifactError, match=r"generate is missing although .* comes after it"):
        one(run.end())
    with pytest.raises(InputError, match="no run 'nobody'"):
        one(RunPaths(run.paths.root, "nobody"))


def test_config_differences_name_what_changes_results(made, collapsed):
    other = made("other", settings=["rl.kl_coef=0.5"]).end()
    report = gather([read_run(collapsed.paths), read_run(other)])
    found = {row.field: row.values for row in report.differences}
    assert found["rl.kl_coef"] == [0.01, 0.5]
    assert found["guards.label_balance.action"] == ["stop", "warn"]
    assert "run.name" not in found
    assert config_differences([{"a": 1}, {"b": None}])[0].values == [1, None]


@pytest.mark.parametrize(
    "settings",
    [
        ["rl.learning_rate=1e-6", "model.path=a model's folder"],
        ['verdict.views=["feasible_first","infeasible_first"]', "model.revision=null", "consensus.anchors.share=0.3"],
        ["evaluation.benchmarks=[{name: kuq, path: /x y, limit: 5}]", "engine.compile=true", "model.revision='null'"],
    ],
)
def test_the_command_makes_the_same_config(made, settings):
    import shlex

    run = made(settings=settings)
    words = shlex.split(command(read_run(run.end())))
    assert words[:3] == ["knowrl", "run", "--config"]
    assert words[3] in profiles()
    overrides = [word for word in words[4:] if word != "--set"]
    again = load_config(words[3], overrides)
    expected = build_config(run.config.model_dump(mode="json"), ["run.name=made-again", f"run.root={again.run.root}"])
    assert again == expected


def test_the_data_is_json(collapsed):
    text = json.dumps(make_report([collapsed.paths]).as_json(), allow_nan=False)
    assert json.loads(text)["runs"][0]["sets"][0]["metrics"]["accuracy"]["values"] == pytest.approx(
        [0.5, 0.65, 0.85, 0.7, 0.5]
    )
    assert np.isfinite(json.loads(text)["runs"][0]["flips"][0]["p"])


def test_the_best_constant_answer_is_the_same_in_chart_and_table(made):
    run = made(planned=1).iteration(0, (0.5, 0.5)).iteration(1, (0.9, 0.9))
    seen = one(run.end())
    probe = replace(seen.probe, controls={"always_infeasible": 0.3, "always_feasible": 0.7, "tfidf": 0.9, "other": 1.0})
    [row] = score_rows(replace(seen, sets=[probe]))
    assert row[score_head(seen).index("Best constant")] == "0.700"
    assert [rule.value for rule in rules_of(seen, probe) if rule.look == "constant"] == [0.7]
    bare = replace(probe, controls={"tfidf": 0.9})
    assert (bare.best_constant, [rule.look for rule in rules_of(seen, bare)]) == (None, ["base", "tfidf"])


SECRET = "https://me:s3cret@models.example/m"


def test_passwords_in_addresses_are_in_no_report(made, tmp_path):
    run = made(settings=[f"model.path={SECRET}", "run.iterations=1"]).iteration(0, (0.5, 0.5)).iteration(1, (0.9, 0.9))
    run.file.note_redone("001/update", f"{SECRET} changed")
    other = made("other").iteration(0, (0.5, 0.5))
    report = make_report([run.end(), other.end()])
    write_report(report, tmp_path / "report.html")
    for text in (json.dumps(report.as_json()), (tmp_path / "report.html").read_text()):
        assert "s3cret" not in text
        assert "https://me:***@models.example/m" in text
    assert "model.path=https://me:***@models.example/m" in report.runs[0].command
    assert {row.field: row.values for row in report.differences}["model.path"][0] == "https://me:***@models.example/m"


def test_a_port_and_an_at_sign_elsewhere_are_no_password(made):
    settings = ["tracking.uri=http://mlflow.example:5000", "model.path=team/model@home"]
    seen = one(made(settings=settings).iteration(0, (0.5, 0.5)).end())
    for text in (seen.command, config_text(seen)):
        assert "http://mlflow.example:5000" in text
        assert "team/model@home" in text
