"""Who judges what in stage ``classify``, and what depends on it."""

import math

import pytest

from knowrl_core.labels import FEASIBLE
from knowrl_core.storage.layout import StageKey
from tasks.classify import _body, _config, _inputs

KEY = StageKey(2, "classify")
AVERAGE = "iterations/001/update/checkpoint/average/model.safetensors"
WEIGHTS = "iterations/001/update/checkpoint/model.safetensors"


@pytest.fixture
def classified(make_context, make_writer, make_candidate):
    def run(*settings, checkpoint=((WEIGHTS, "m1"),), logprobs=None, parent=1):
        candidates = [make_candidate(f"t{i}", kept=i < 6) for i in range(7)]
        tables = {"002/generate/candidates.parquet": candidates, "000/generate/candidates.parquet": []}
        ctx = make_context(settings, tables=tables, parent=parent)
        ctx.checkpoints[1] = list(checkpoint)
        ctx.worker.logprobs = logprobs or {}
        writer = make_writer()
        _body(ctx, KEY, writer)
        return ctx, writer

    return run


def paths(ctx):
    return [ref.path for ref in _inputs(ctx, KEY)]


def test_without_anchors_and_teacher_there_is_one_file(classified):
    ctx, writer = classified()
    assert list(writer.tables) == ["verdicts.parquet"]
    assert [folder for folder, _ in ctx.worker.asked] == ["/m1"]
    assert len(writer.tables["verdicts.parquet"]) == 6 * 4
    assert not any("files." in path or "benchmarks" in path for path in paths(ctx))
    assert len(set(paths(ctx))) == len(paths(ctx))


def test_anchors_come_after_the_candidates_and_leave_their_verdicts_alone(classified):
    plain = classified()[1].tables["verdicts.parquet"]
    ctx, writer = classified("consensus.anchors.share=0.5")
    assert writer.tables["verdicts.parquet"] == plain
    assert [(folder, len(asked)) for folder, asked in ctx.worker.asked] == [("/m1", 6), ("/m1", 6)]
    anchors = writer.tables["anchors.parquet"]
    ids = list(dict.fromkeys(row.task_id for row in anchors))
    numbers = [int(task_id.removeprefix("seed/s")) for task_id in ids]
    assert sum(number < 10 for number in numbers) == 3
    assert sum(number >= 10 for number in numbers) == 3
    assert len(anchors) == 6 * 4
    assert writer.metrics["anchors/tasks"] == 6
    assert writer.metrics["tasks"] == 6
    assert ctx.progress[-1] == (12, 12)
    assert {"external/files.feasible", "external/files.probe", "iterations/000/generate/candidates.parquet"} <= set(
        paths(ctx)
    )
    assert any(path.startswith("external/benchmarks/paired") for path in paths(ctx))


def test_what_the_probe_holds_is_no_anchor(classified):
    _, writer = classified("consensus.anchors.share=0.9")
    ids = {row.task_id for row in writer.tables["anchors.parquet"]}
    assert "seed/s3" not in ids  # "Seed 3" is a probe task, too
    assert len(ids) == 18


def test_anchors_without_candidates_are_an_empty_table(make_context, make_writer):
    tables = {"002/generate/candidates.parquet": [], "000/generate/candidates.parquet": []}
    ctx, writer = make_context(["consensus.anchors.share=1"], tables=tables), make_writer()
    _body(ctx, KEY, writer)
    assert writer.tables == {"verdicts.parquet": [], "anchors.parquet": []}
    assert all(math.isfinite(value) for value in writer.metrics.values())


def test_the_initial_model_judges_last_with_noise_of_its_own(classified):
    ctx, writer = classified("consensus.reward.votes=initial", "consensus.anchors.share=0.5", logprobs={"/m0": 20.0})
    assert [(folder, len(asked)) for folder, asked in ctx.worker.asked] == [("/m1", 6), ("/m1", 6), ("/m0", 6)]
    assert ctx.worker.asked[0][1] == ctx.worker.asked[2][1]
    taught = writer.tables["teacher.parquet"]
    assert {(row.policy, row.verdict) for row in taught} == {("it0", "infeasible")}
    assert {row.policy for row in writer.tables["verdicts.parquet"]} == {"it1"}
    assert writer.metrics["teacher/called_feasible"] == 0.0
    assert "external/model" in paths(ctx)
    assert ctx.progress[-1] == (18, 18)


def test_in_the_first_iteration_the_same_model_judges_twice(classified):
    ctx, writer = classified("consensus.reward.votes=initial", "verdict.k=64", parent=0)
    own, taught = writer.tables["verdicts.parquet"], writer.tables["teacher.parquet"]
    assert [folder for folder, _ in ctx.worker.asked] == ["/m0", "/m0"]
    assert [row.p_infeasible for row in own] == [row.p_infeasible for row in taught]
    said = [[row.verdict == FEASIBLE for row in rows] for rows in (own, taught)]
    same = sum(a == b for a, b in zip(*said, strict=True)) / len(own)
    assert 0.3 < same < 0.7  # as two independent coins would
    assert paths(ctx).count("external/model") == 1


@pytest.mark.parametrize(
    ("checkpoint", "folder", "policy"),
    [
        ([(AVERAGE, "a" * 64), (WEIGHTS, "m1")], "/m1/average", "average-it001@aaaaaaaaaaaa"),
        ([(WEIGHTS, "m1")], "/m1", "it1"),  # it begins here, with the policy
    ],
)
def test_the_average_of_the_parents_checkpoint_judges(classified, checkpoint, folder, policy):
    ctx, writer = classified("consensus.reward.votes=average", checkpoint=checkpoint)
    assert [asked for asked, _ in ctx.worker.asked] == ["/m1", folder]
    assert {row.policy for row in writer.tables["teacher.parquet"]} == {policy}
    assert {path for path, _ in checkpoint} <= set(paths(ctx))


def test_the_teacher_is_asked_in_the_same_views(classified):
    _, writer = classified("consensus.reward.votes=initial", "verdict.views=[feasible_first, infeasible_first]")
    views = [[(row.task_id, row.sample, row.view) for row in rows] for rows in writer.tables.values()]
    assert views[0] == views[1]


def test_the_slice_holds_what_decides_who_judges(make_context):
    def changed(*settings):
        return _config(make_context(settings).config) != _config(make_context().config)

    assert changed("consensus.reward.votes=initial")
    assert changed("consensus.anchors.share=0.1")
    assert not changed("consensus.reward.rule=prior_corrected")
    assert not changed("evaluation.benchmarks=[]")
    # With anchors, what is held out of them counts.
    share = "consensus.anchors.share=0.1"
    with_set, without = make_context([share]), make_context([share, "evaluation.benchmarks=[]"])
    assert _config(with_set.config) != _config(without.config)


CHANNEL = ("consensus.reward.votes=channel", "consensus.reward.channel_shots=3")


@pytest.mark.parametrize("votes", ["channel", "joint"])
def test_the_initial_model_judges_by_likelihood(classified, votes):
    ctx, writer = classified(*CHANNEL, f"consensus.reward.votes={votes}", "consensus.anchors.share=0.5")
    # Four draws of each label, every time all six tasks, after the policy's own verdicts and the anchors'.
    assert [(folder, len(asked)) for folder, asked in ctx.worker.asked] == [("/m1", 6), ("/m1", 6), *[("/m0", 6)] * 8]
    taught = writer.tables["teacher.parquet"]
    assert [row.view for row in taught[:4]] == [f"channel-{draw}" for draw in range(4)]
    assert {row.policy for row in taught} == {"it0"}
    assert ctx.progress[-1] == (12 + 48, 12 + 48)
    told = paths(ctx)
    assert len(set(told)) == len(told)
    assert {"external/model", "external/files.feasible", "external/files.infeasible"} <= set(told)
    assert sum("introspect" in path for path in told) == 2


def test_only_its_own_settings_change_the_signature_of_a_stage(classified):
    plain, channel = classified()[0].config, classified(*CHANNEL)[0].config
    assert "channel" not in _config(plain)
    assert _config(channel)["channel"] == {"draws": 4, "shots": 3}  # no more draws than verdicts
    fewer = classified(*CHANNEL, "consensus.reward.channel_draws=2")
    assert _config(fewer[0].config)["channel"] == {"draws": 2, "shots": 3}
    assert fewer[0].progress[-1] == (6 + 24, 6 + 24)
