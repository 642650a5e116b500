"""What an update refuses, and what it leaves behind when it cannot be done."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from knowrl_core.config.rl import LoraConfig
from knowrl_core.errors import ArtifactError, InputError, StageError
from knowrl_core.rl import Rollout
from knowrl_core.rl.experience import Experience
from knowrl_core.rl.forward import PackedModel
from knowrl_core.rl.update import run_update
from tests.unit.knowrl_core.rl.folders import hashes, weights


def test_non_finite_loss(make_job, folders, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folders["llama"].iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = weights(broken)
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    job = make_job(policy_dir=broken, kl_coef=0.0)
    with pytest.raises(StageError, match="loss of optimizer step 1 is nan, expected a finite number") as error:
        run_update(job)
    assert "rl.learning_rate" in error.value.hint
    assert not job.output_dir.exists()


def test_weights_that_run_away_are_stopped(make_job):
    job = make_job(learning_rate=1.0, epochs=100, max_grad_norm=1e30)
    job = job.model_copy(update={"rl": job.rl.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(StageError, match="expected a finite number"):
        run_update(job)
    assert not job.output_dir.exists()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_names_the_lever(make_job, monkeypatch, error):
    def exhausted(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(PackedModel, "__call__", exhausted)
    job = make_job()
    longest = max(unit.packed_length for units in Experience.of(job.rollouts).units for unit in units)
    with pytest.raises(StageError, match=rf"micro_token_budget is 64, .* has {longest}\n") as caught:
        run_update(job)
    assert caught.value.hint.startswith("Lower rl.micro_token_budget")
    assert not job.output_dir.exists()


def test_out_of_memory_of_a_task_above_the_budget_names_other_levers(make_job, make_rollouts, monkeypatch):
    def exhausted(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackedModel, "__call__", exhausted)
    raw = [task.model_dump() for task in make_rollouts(n=3)]
    raw[1]["prompts"][0]["prompt_token_ids"] = (5,) * 64
    raw[2]["prompts"][0]["prompt_token_ids"] = (5,) * 65  # left out
    job = make_job(rollouts=tuple(Rollout.model_validate(task) for task in raw))
    (unit,) = Experience.of(job.rollouts).units[1]
    assert unit.packed_length > 64
    with pytest.raises(StageError, match=rf"\(task task-1\) has {unit.packed_length}\n") as caught:
        run_update(job)
    assert "rl.micro_token_budget cannot help" in caught.value.hint
    for lever in ("verdict.k", "verdict.sampling.max_new_tokens", "rl.max_prompt_tokens", "rl.gradient_checkpointing"):
        assert lever in caught.value.hint


def test_interrupt_leaves_nothing_behind(make_job):
    job = make_job()

    def stop(update: object) -> None:
        if update.phase == "save" and update.done == 1:
            assert job.output_dir.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_update(job, progress=stop)
    assert not job.output_dir.exists()


def test_unwritable_output(make_job, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StageError, match="cannot write the checkpoint"):
        run_update(make_job(output_dir=tmp_path / "file" / "out"))


def test_contradictions_are_refused(make_job, folders, tmp_path):
    with pytest.raises(InputError, match="exists, expected a new path"):
        run_update(make_job(output_dir=folders["llama"]))
    assert folders["llama"].exists()
    with pytest.raises(InputError, match="reference_dir is not set"):
        run_update(make_job(reference_dir=None))
    with pytest.raises(InputError, match=r"expected a folder with config.json and"):
        run_update(make_job(policy_dir=tmp_path / "nowhere"))
    with pytest.raises(ArtifactError, match="cannot read the optimizer state"):
        run_update(make_job(optimizer_dir=folders["llama"]))


def test_optimizer_state_of_another_model_is_refused(make_job, folders):
    other = make_job("other", policy_dir=folders["qwen2"], kl_coef=0.0)
    run_update(other)
    with pytest.raises(ArtifactError, match="does not fit the model"):
        run_update(make_job(optimizer_dir=other.output_dir))


def test_optimizer_state_of_a_smaller_model_is_refused(make_job, folders):
    """All names of the tied Llama are names of Qwen2, too, which has more."""
    other = make_job("other", kl_coef=0.0)
    run_update(other)
    with pytest.raises(ArtifactError, match="does not fit the model"):
        run_update(make_job(policy_dir=folders["qwen2"], kl_coef=0.0, optimizer_dir=other.output_dir))


@pytest.mark.parametrize(
    ("token", "length", "message"), [(61, 4, "vocabulary of 61"), (60, 140, "expected at most the model's 128")]
)
def test_rollouts_that_do_not_fit_the_model(make_job, make_rollouts, token, length, message):
    raw = make_rollouts(n=1)[0].model_dump()
    raw["prompts"][0]["prompt_token_ids"] = (token,) * length
    with pytest.raises(StageError, match=message):
        run_update(make_job(rollouts=(Rollout.model_validate(raw),), max_prompt_tokens=512))


@pytest.mark.parametrize("rank", [0, 4])
def test_a_non_finite_update_can_be_thrown_away(make_job, rank):
    lora = LoraConfig(rank=rank)
    first = make_job("first", lora=lora)
    run_update(first)
    options = {"policy_dir": first.output_dir, "optimizer_dir": first.output_dir, "lora": lora, "max_grad_norm": 1e30}

    def wild(name, **more):
        job = make_job(name, **options, **more)
        return job.model_copy(update={"rl": job.rl.model_copy(update={"learning_rate": 1e30})})

    bad = wild("bad", non_finite="discard")
    result = run_update(bad)
    assert result.metrics["non_finite"] == 1.0
    assert (result.steps, result.rollouts) == ((), ())
    assert all(np.isfinite(value) for value in result.metrics.values())
    before, after = weights(first.output_dir), weights(bad.output_dir)
    for name, value in before.items():
        # with adapters the weights are taken apart and merged again, which rounds
        torch.testing.assert_close(after[name], value, rtol=1e-5 if rank else 0, atol=1e-6 if rank else 0)
    assert (
        hashes(bad.output_dir)["optimizer/moments.safetensors"]
        == hashes(first.output_dir)["optimizer/moments.safetensors"]
    )
    with pytest.raises(StageError, match="expected a finite number"):
        run_update(wild("worse"))
    assert not wild("worse").output_dir.exists()
