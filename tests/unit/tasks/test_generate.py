"""What the stage ``generate`` keeps out of training."""

from types import SimpleNamespace

import pytest

from knowrl_core.config import build_config
from knowrl_core.resources import shipped
from knowrl_core.seeds import load_seed_file
from knowrl_core.storage.layout import StageKey
from tasks.generate import _inputs, held_out

PROBE = load_seed_file(shipped("seeds", "probe.jsonl"))
CANDIDATES = [SimpleNamespace(id="a", task="Wash my car.", kept=True), SimpleNamespace(id="b", task="?", kept=False)]


@pytest.fixture
def ctx():
    prompts = SimpleNamespace(introspect_feasible=None, introspect_infeasible=None)
    return SimpleNamespace(
        config=build_config({}, ["evaluation.benchmarks=[{name: paired, limit: 2}]"]),
        inputs=SimpleNamespace(probe=PROBE, prompts=prompts),
        read=lambda key, name, record: CANDIDATES,
        pin_refs=lambda *names: list(names),
        template_refs=lambda templates: [],
        checkpoint_refs=lambda iteration: [],
        decision_refs=lambda iteration: [],
        parent=lambda iteration: max(iteration - 1, 0),
        history={},
        ref=lambda key, name: f"{key}/{name}",
    )


def test_probe_and_whole_benchmarks_are_held_out_and_later_the_frozen_set(ctx):
    sets = held_out(ctx, StageKey(0, "generate"))
    assert {name: len(tasks) for name, tasks in sets.items()} == {"probe": len(PROBE), "paired": 300}
    assert (PROBE[0].id, PROBE[0].task) in sets["probe"]
    assert held_out(ctx, StageKey(1, "generate"))["frozen"] == [("a", "Wash my car.")]


@pytest.mark.parametrize("iteration", [0, 1])
def test_what_is_held_out_is_an_input(ctx, iteration):
    refs = _inputs(ctx, StageKey(iteration, "generate"))
    assert "files.probe" in refs
    assert "external/benchmarks/paired/paired.jsonl" in [getattr(ref, "path", "") for ref in refs]
    assert ("000/generate/candidates.parquet" in refs) == (iteration > 0)
