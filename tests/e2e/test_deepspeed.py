"""A whole run whose updates are DeepSpeed's."""

import pytest
from safetensors.torch import load_file

from knowrl_core.resources import shipped
from knowrl_core.storage.layout import UPDATE, RunPaths, StageKey
from knowrl_core.storage.retention import CHECKPOINT
from tests.e2e.helpers import TINY, knowrl

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def weights(root):
    folder = RunPaths(root, "smoke").stage(StageKey(1, UPDATE)) / CHECKPOINT
    return load_file(folder / "model.safetensors"), sorted(path.name for path in folder.iterdir())


def test_a_run(tmp_path, home, prefect_server, reference):
    """It ends with the weights of the torch trainer; a wrong setting ends it before anything is made."""
    options = [f"--set=run.root={tmp_path / 'root'}", "--set=run.iterations=1", "--set=rl.trainer=deepspeed", *TINY]

    def run(name, check):
        file = f"--set=rl.deepspeed.config={name}"
        return knowrl("run", "--config=smoke", *options, file, home=home, check=check, PREFECT_API_URL=prefect_server)

    refused = run(shipped("configs", "deepspeed", "zero3-offload.json"), 2)
    assert "zero_optimization.stage to 3, expected 2 or nothing: rl.deepspeed.stage decides it" in refused.stderr
    assert not (tmp_path / "root").exists()

    run(shipped("configs", "deepspeed", "zero2.json"), 0)
    (found, files), (expected, expected_files) = weights(tmp_path / "root"), weights(reference.parent)
    assert files == expected_files
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-4 * value.abs().max(), name
    assert not list((tmp_path / "root").rglob(".deepspeed-*"))
