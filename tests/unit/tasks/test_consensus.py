"""What stage ``consensus`` reads: that which was judged decides, not today's config."""

import math
from types import SimpleNamespace

import pytest

from knowrl_core.storage.layout import StageKey
from tasks import classify
from tasks.consensus import _body, _inputs

KEY = StageKey(2, "consensus")
JUDGED = StageKey(2, "classify")


@pytest.fixture
def run(make_context, make_writer, make_candidate):
    def run(judged=(), now=(), logprobs=None):
        """Classify under one config, then reach consensus under another."""
        candidates = [make_candidate(f"t{i}", "feasible" if i % 2 else "infeasible") for i in range(6)]
        tables = {"002/generate/candidates.parquet": candidates, "000/generate/candidates.parquet": []}
        before, written = make_context(judged, tables=tables), make_writer()
        before.worker.logprobs = logprobs or {}
        classify._body(before, JUDGED, written)
        ctx = make_context(now, tables=tables | {f"{JUDGED}/{name}": rows for name, rows in written.tables.items()})
        outputs = [SimpleNamespace(path=f"iterations/{JUDGED}/{name}") for name in written.tables]
        ctx.history[JUDGED] = SimpleNamespace(outputs=outputs, config=classify._config(before.config))
        writer = make_writer()
        _body(ctx, KEY, writer)
        assert all(math.isfinite(value) for value in writer.metrics.values())
        return ctx, writer

    return run


def test_nothing_extra_by_default(run):
    ctx, writer = run()
    assert sorted(writer.tables) == ["consensus.parquet", "pool.parquet"]
    assert "anchor_reward" not in writer.metrics
    assert "teacher_agreement" not in writer.metrics
    assert not any("files." in ref.path for ref in _inputs(ctx, KEY))


ALL = ("consensus.anchors.share=0.4", "consensus.reward.votes=initial", "consensus.reward.rule=prior_corrected",
       "consensus.reward.evidence=probability", "verdict.views=[feasible_first, infeasible_first]")  # fmt: skip


def test_all_together(run):
    ctx, writer = run(ALL, ALL)
    rows, anchors = writer.tables["consensus.parquet"], writer.tables["anchors.parquet"]
    # Four anchors make up 0.4 of ten tasks.
    assert (len(rows), len(anchors)) == (6, 4)
    assert not any(row.task_id.startswith("seed/") for row in rows)
    # The fake gives all tasks the same probability: against the median no candidate has a label, but the anchors do.
    assert {row.label for row in rows} == {None}
    assert all(anchor.trained and anchor.label for anchor in anchors)
    assert {row.teacher_feasible is None for row in rows} == {False}
    assert writer.tables["pool.parquet"] == []
    assert writer.metrics["anchor_reward"] == sum(sum(anchor.rewards) for anchor in anchors) / 16
    read = [ref.path for ref in _inputs(ctx, KEY)]
    assert {"iterations/002/classify/anchors.parquet", "iterations/002/classify/teacher.parquet",
            "external/files.feasible", "external/files.infeasible"} <= set(read)  # fmt: skip


def test_the_teachers_label_rewards_the_policy(run):
    settings = ("consensus.reward.votes=initial",)
    _, writer = run(settings, settings, logprobs={"/m1": -30.0, "/m0": 20.0})
    rows = writer.tables["consensus.parquet"]
    # The policy always says feasible, the initial model infeasible.
    assert {(row.label, row.votes_feasible, row.teacher_infeasible, sum(row.rewards)) for row in rows} == {
        ("infeasible", 4, 4, 0)
    }
    assert writer.metrics["teacher_agreement"] == 0.0


def test_anchors_alone(run):
    settings = ("consensus.anchors.share=1",)
    _, writer = run(settings, settings)
    assert {row.train_drop_reason for row in writer.tables["consensus.parquet"]} == {"anchors_only"}
    assert len(writer.tables["anchors.parquet"]) == 6
    assert writer.metrics["trained"] == 0


def test_a_config_changed_since_the_tasks_were_judged(run):
    # Anchors alone came too late: there are none, so the candidates are trained on.
    _, writer = run((), ("consensus.anchors.share=1", "consensus.reward.votes=initial"))
    assert sorted(writer.tables) == ["consensus.parquet", "pool.parquet"]
    assert "anchors_only" not in {row.train_drop_reason for row in writer.tables["consensus.parquet"]}
    # And the other way round they are used up, and the teacher's labels, too.
    _, writer = run(("consensus.anchors.share=1", "consensus.reward.votes=initial"), ("verdict.k=8",))
    assert {row.train_drop_reason for row in writer.tables["consensus.parquet"]} == {"anchors_only"}
    assert {row.teacher_feasible is None for row in writer.tables["consensus.parquet"]} == {False}
