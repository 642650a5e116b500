"""What runs with other configs have in common."""

import pytest

from knowrl_core.config import load_config
from knowrl_core.guards.decision import DECISION, Decision, Point
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import EVALUATE, UPDATE, StageKey
from knowrl_core.storage.retention import CHECKPOINT
from knowrl_core.storage.roots import run_paths
from knowrl_core.storage.run_file import RunFile
from tasks.prepare import prepare
from tasks.sharing import _stage, shared_until
from tasks.starting import keys_of

START = ["rl.kl_coef=0.001", "run.iterations=2", "retention.keep_last=10"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_path):
    """A run of two iterations whose stages hold nothing but manifests."""
    root = tmp_path_factory.mktemp("runs")
    config = load_config("smoke", [*START, f"run.root={root}", "run.name=old"])
    paths = run_paths(config.run.root, config.run.name)
    paths.folder.mkdir()
    RunFile.create(config, prepare(config).pins).write(paths)
    for key in keys_of(config):
        writer = StageWriter(paths, key, seed=config.run.seed, config=_stage(config, key).config(config), inputs=[])
        if key.stage == UPDATE:
            (writer.folder / CHECKPOINT).mkdir()
            (writer.folder / CHECKPOINT / "model.safetensors").touch()
        if key.stage == EVALUATE:
            decision = Decision(
                parent=key.iteration,
                lineage=(Point(iteration=key.iteration, balanced_accuracy=None, reward=None),),
                learning_rate_factor=1.0,
                rollbacks=0,
                stop=False,
                reason=None,
            )
            writer.path(DECISION).write_text(decision.text())
        writer.commit()
    return root, paths


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        (["rl.kl_coef=0.01"], "1/update"),
        (["consensus.train_min_share=0.9"], "1/consensus"),
        (["verdict.k=7"], "0/evaluate"),
        (["introspection.tasks_per_call=9"], None),
        (["run.seed=5"], None),
        (["warmup.epochs=1"], None),
        (["run.iterations=1"], "1/evaluate"),
        (["run.iterations=5"], "3/generate"),
        (["retention.keep_last=3", "engine.shard=9"], "2/evaluate"),
        ([], "2/evaluate"),
    ],
)
def test_it_is_shared_up_to_the_first_stage_that_differs(run, changes, at):
    root, old = run
    config = load_config("smoke", [*START, f"run.root={root}", "run.name=new", *changes])
    assert shared_until(old, config, prepare(config)) == (StageKey.parse(at) if at else None)
