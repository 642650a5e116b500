"""One damaged run keeps none of the others of a study from being done."""

import pytest

from flows.study import conduct, members, summary
from knowrl_core.config import load_config
from knowrl_core.resources import shipped
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import GENERATE, StageKey
from knowrl_core.storage.roots import run_paths
from knowrl_core.storage.run_file import RunFile
from tasks.prepare import prepare


@pytest.fixture
def configs(tmp_path, tiny_path):
    return [
        load_config("smoke", [f"run.root={tmp_path}", "run.iterations=1", f"run.name={name}"])
        for name in ("one", "two")
    ]


def begun(config):
    """A run with its first stage, whose table is not looked at."""
    paths = run_paths(config.run.root, config.run.name)
    paths.folder.mkdir()
    RunFile.create(config, prepare(config).pins).write(paths)
    StageWriter(paths, StageKey(0, GENERATE), seed=config.run.seed, config={}, inputs=[]).commit()
    return paths


def test_a_damaged_run_is_reported_and_the_next_is_done(configs):
    paths = begun(configs[0])
    (paths.stage(StageKey(0, GENERATE)) / "manifest.json").write_text("{")
    asked = []
    done = conduct(configs, lambda config: asked.append(config.run.name))
    assert asked == ["one", "two"]
    assert [(member.run, member.rows, member.best) for member in done] == [("one", [], None), ("two", [], None)]
    assert "manifest.json" in done[0].error
    assert done[1].error is None
    assert [row["run"] for row in summary(done)] == ["one", "two"]


def test_the_runs_of_the_study_that_ships_are_sound():
    files = sorted(shipped("configs").glob("study/*.yaml"))
    configs = members([str(file) for file in files])

    assert len(files) > 10
    assert [config.run.name for config in configs] == [file.stem for file in files]
    assert all(config.warmup.views == configs[0].warmup.views for config in configs)
    assert len({config.model_dump_json(exclude={"run": {"name", "root"}}) for config in configs}) == len(configs)
