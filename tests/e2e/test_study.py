"""``knowrl study``: what runs have in common is done once, and one that fails keeps none of the others."""

import pytest
import yaml

from knowrl_core.resources import shipped
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.run_file import RunFile
from tests.e2e.helpers import TINY, knowrl, manifests

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def written(folder, name, **sections):
    """A config of the study."""
    document = yaml.safe_load(shipped("configs", "smoke.yaml").read_text())
    document["run"] |= {"name": name, "iterations": 1}
    for section, values in sections.items():
        document[section] = document.get(section, {}) | values
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_a_study(tmp_path, home, prefect_server):
    files = [
        written(tmp_path, "first", rl={"kl_coef": 0.001}),
        written(tmp_path, "broken", introspection={"sampling": {"max_new_tokens": 100_000}}),
        written(tmp_path, "other", rl={"kl_coef": 0.1}),
    ]
    root = tmp_path / "runs"
    command = ["study", *files, f"--set=run.root={root}", *TINY]
    failed = knowrl(*command, home=home, check=1, PREFECT_API_URL=prefect_server)

    assert "1 of 3 runs did not end: broken: StageError: stage 000/generate" in failed.stderr
    assert "Go on with: " in failed.stderr
    assert "Traceback" not in failed.stderr
    assert [line.split()[0] for line in failed.stdout.splitlines() if line.startswith(" first") or "other" in line]
    forked = RunFile.read(RunPaths(root, "other")).forked_from
    assert (forked.run, forked.at) == ("first", "001/update")
    shared, own = (
        [RunPaths(root, name).stage(StageKey(1, stage)) / "manifest.json" for name in ("first", "other")]
        for stage in ("consensus", "update")
    )
    assert shared[0].samefile(shared[1])
    assert not own[0].samefile(own[1])
    before = {name: manifests(root / name) for name in ("first", "other")}
    assert all(len(found) == 7 for found in before.values())

    written(tmp_path, "broken")
    done = knowrl(*command, home=home, check=0, PREFECT_API_URL=prefect_server)

    assert done.stderr.count("all 7 stages are committed; nothing to do") == 2
    assert {name: manifests(root / name) for name in ("first", "other")} == before
    assert len(manifests(root / "broken")) == 7
    assert all(name in done.stdout for name in ("first", "broken", "other"))


def test_two_runs_of_one_name_are_refused_before_any_work(tmp_path, home):
    file = written(tmp_path, "same")
    done = knowrl("study", file, file, f"--set=run.root={tmp_path / 'runs'}", home=home, check=2)
    assert "got run.name 'same', which another file of the study has" in done.stderr
    assert not (tmp_path / "runs").exists()
