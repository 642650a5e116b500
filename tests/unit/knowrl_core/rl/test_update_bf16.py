"""Updates in bf16: weights that settle once, and steps that stay small."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from knowrl_core.rl import trainer as trainer_module
from knowrl_core.rl.update import run_update
from tests.unit.knowrl_core.rl.folders import same_weights, weights


@pytest.fixture
def half_way(folders, tmp_path):
    """The tiny Llama with weights half-way between two bf16 numbers."""
    folder = shutil.copytree(folders["llama"], tmp_path / "fp16")
    halves = {  # the upper 16 bits are a bf16 number; 0x8000 below them is half-way to the next
        name: ((t.view(torch.int32) & ~0xFFFF) | 0x8000).view(torch.float32) if "proj" in name else t
        for name, t in weights(folder).items()
    }
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def settled(folder: Path) -> bool:
    """Whether the weights of a folder are bf16 numbers but for steps of 1e-9."""
    return all(
        torch.allclose(t, t.bfloat16().float(), rtol=0, atol=1e-7) for name, t in weights(folder).items()
        if "proj" in name
    )  # fmt: skip


def test_in_bf16_nothing_to_train_on_leaves_the_weights_to_the_bit(make_job, half_way):
    job = make_job(policy_dir=half_way, rollouts=(), precision="bf16")
    run_update(job)
    assert same_weights(job.output_dir, half_way)
    # so they are still to be settled
    following = make_job(
        "next", policy_dir=job.output_dir, optimizer_dir=job.output_dir, precision="bf16", learning_rate=1e-9
    )
    run_update(following)
    assert settled(following.output_dir)


def test_a_switch_to_bf16_settles_the_weights_once(make_job, half_way, monkeypatch):
    calls = []
    settle = trainer_module.settle_on_bf16
    monkeypatch.setattr(trainer_module, "settle_on_bf16", lambda model: (calls.append(1), settle(model)))
    before = make_job("fp32", policy_dir=half_way, learning_rate=1e-9)
    run_update(before)
    assert not settled(before.output_dir)
    for name in ("first", "second"):
        job = make_job(
            name, policy_dir=before.output_dir, optimizer_dir=before.output_dir, precision="bf16", learning_rate=1e-9
        )
        run_update(job)
        assert settled(job.output_dir)
        before = job
    assert calls == [1]


def test_in_bf16_a_tiny_step_is_a_tiny_change(make_job, half_way):
    """Weights half-way between two bf16 numbers must not all flip at the first step."""
    job = make_job(
        policy_dir=half_way, reference_dir=half_way, precision="bf16", learning_rate=1e-9, train_batch_size=2
    )
    result = run_update(job)
    assert len(result.steps) > 1
    assert max(abs(step.kl) for step in result.steps) < 1e-4
