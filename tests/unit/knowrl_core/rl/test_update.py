import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from knowrl_core.config.rl import LoraConfig
from knowrl_core.errors import ArtifactError, InputError, StageError
from knowrl_core.rl import Rollout, UpdateResult
from knowrl_core.rl import backend as backend_module
from knowrl_core.rl import trainer as trainer_module
from knowrl_core.rl.batches import rollout_batches
from knowrl_core.rl.experience import Experience
from knowrl_core.rl.forward import PackedModel
from knowrl_core.rl.update import run_update

FILES = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "optimizer",
    "tokenizer_config.json",
    "trainer_state.json",
]


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_whole_update(make_job, kind, folders):
    job = make_job(policy_dir=folders[kind], reference_dir=folders[kind])
    seen = []
    result = run_update(job, progress=seen.append)
    assert sorted(p.name for p in job.output_dir.iterdir()) == FILES
    model = AutoModelForCausalLM.from_pretrained(job.output_dir)
    assert model.dtype == torch.float32
    assert not same_weights(job.output_dir, folders[kind])
    # 6 tasks of 4 verdicts; batches of 4 and 2 tasks; steps of 8 verdicts
    assert [(s.step, s.epoch, s.batch, s.tasks) for s in result.steps] == [(1, 0, 0, 2), (2, 0, 0, 2), (3, 0, 1, 2)]
    assert [(r.task_id, r.sample) for r in result.rollouts] == [(f"task-{i}", j) for i in range(6) for j in range(4)]
    assert result.metrics["tasks"] == 6
    assert result.metrics["verdicts"] == 24
    assert result.metrics["skipped"] == 0
    assert sum(s.tokens for s in result.steps) == sum(r.tokens for r in result.rollouts) == result.metrics["tokens"]
    state = {"global_step": 3, "schedule_step": 3, "precision": "fp32"}
    assert json.loads((job.output_dir / "trainer_state.json").read_text()) == state
    # the reference is the policy itself: its log-probabilities are the old ones, and the KL starts at 0
    assert all(r.logprob_reference == r.logprob_policy for r in result.rollouts)
    assert result.metrics["kl/start"] == 0.0
    assert result.steps[0].kl == 0.0
    assert result.steps[1].kl != 0.0
    # the first step sees ratio 1
    assert result.steps[0].clip_fraction == 0.0
    assert [p.phase for p in seen][-1] == "save"
    assert [p.done for p in seen if p.phase == "train"] == [0, 1, 2, 3]
    assert UpdateResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_first_step_has_ratio_one(make_job, precision):
    # One step in which advantages have mean 0 over its tokens: at ratio 1 the loss is minus their mean, 0.
    result = run_update(make_job(precision=precision, rollout_batch_size=6, train_batch_size=24))
    assert len(result.steps) == 1
    assert result.steps[0].loss == pytest.approx(0.0, abs=1e-6)
    assert result.steps[0].clip_fraction == 0.0


def test_reference(make_job):
    result = run_update(make_job())
    differences = [r.logprob_policy - r.logprob_reference for r in result.rollouts]
    tokens = result.metrics["tokens"]
    assert result.metrics["kl/start"] == pytest.approx(sum(differences) / tokens, rel=1e-6)
    assert result.steps[0].kl != 0.0


def test_with_a_coefficient_of_zero_the_kl_is_measured_and_moves_nothing(make_job):
    measured = run_update(make_job(kl_coef=0.0))
    run_update(make_job("plain", kl_coef=0.0, reference_dir=None))
    assert measured.metrics["kl/end"] > 0
    assert same_weights(make_job().output_dir, make_job("plain").output_dir)


def test_without_a_reference_there_is_no_kl(make_job):
    result = run_update(make_job(kl_coef=0.0, reference_dir=None))
    assert all(r.logprob_reference is None for r in result.rollouts)
    assert "kl/mean" not in result.metrics
    # the step has no KL then
    assert UpdateResult.model_validate_json(result.model_dump_json()).model_dump_json() == result.model_dump_json()


def test_engine_difference_is_measured(make_job):
    result = run_update(make_job())
    assert 0 < result.metrics["engine_logprob_diff/mean"] < result.metrics["engine_logprob_diff/max"]


def test_same_job_same_bytes(make_job):
    first, second = make_job("first", epochs=2), make_job("second", epochs=2)
    assert run_update(first).model_dump_json() == run_update(second).model_dump_json()
    assert hashes(first.output_dir) == hashes(second.output_dir)


def test_a_fresh_process_gives_the_same_bytes(make_job, tmp_path):
    job = make_job("first", precision="bf16")
    run_update(make_job("before", shuffle_seed=9, kl_coef=0.0))
    run_update(job)
    other = job.model_copy(update={"output_dir": tmp_path / "second"})
    code = (
        "import sys, torch; from knowrl_core.rl import UpdateJob; from knowrl_core.rl.update import run_update\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "run_update(UpdateJob.model_validate_json(sys.stdin.read()))"
    )
    subprocess.run([sys.executable, "-c", code], input=other.model_dump_json(), text=True, check=True, timeout=120)
    assert hashes(job.output_dir) == hashes(other.output_dir)


def test_two_updates_equal_one_with_the_same_steps(make_job, make_rollouts):
    """Optimizer state and schedule carried over equal one continuous AdamW run.

    With one step an update, its ratios are 1 and its gradient is plain REINFORCE; so the continuous run is torch's own
    AdamW over both gradients, one sequence a verdict.
    """
    tasks = make_rollouts(n=2)
    settings = {"kl_coef": 0.0, "rollout_batch_size": 1, "train_batch_size": 1, "warmup_steps": 3, "weight_decay": 0.1}
    run_update(make_job("a", rollouts=tasks[:1], **settings))
    job_a, job_b = make_job("a", **settings), make_job("b", rollouts=tasks[1:], **settings)
    job_b = job_b.model_copy(update={"policy_dir": job_a.output_dir, "optimizer_dir": job_a.output_dir})
    second = run_update(job_b)
    assert [s.step for s in second.steps] == [2]
    assert second.steps[0].learning_rate == pytest.approx(1e-3 * 2 / 3)

    model = AutoModelForCausalLM.from_pretrained(job_a.policy_dir).eval()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    for number, task in enumerate(tasks, start=1):
        (group,) = task.prompts
        lengths = torch.tensor([len(v.response_token_ids) for v in group.verdicts])
        returns = torch.tensor([v.reward for v in group.verdicts]).repeat_interleave(lengths)
        advantages = (returns - returns.mean()) / returns.var(correction=0).clamp(min=1e-8).sqrt()
        logprobs = []
        for v in group.verdicts:
            ids = torch.tensor([group.prompt_token_ids + v.response_token_ids])
            logs = model(ids).logits[0, len(group.prompt_token_ids) - 1 : -1].log_softmax(-1)
            logprobs.append(logs[torch.arange(len(v.response_token_ids)), torch.tensor(v.response_token_ids)])
        optimizer.zero_grad()
        (-(torch.cat(logprobs) * advantages).mean()).backward()  # ratio 1: REINFORCE
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for param_group in optimizer.param_groups:
            param_group["lr"] = 1e-3 * number / 3
        optimizer.step()
    got = weights(job_b.output_dir)
    start = weights(job_a.policy_dir)
    for name, parameter in model.named_parameters():
        moved = (parameter - start[name]).norm()
        assert (got[name] - parameter).norm() <= 1e-3 * moved, name
    saved = load_file(job_b.output_dir / "optimizer/moments.safetensors")
    assert saved["step"].item() == 2
    for name, parameter in model.named_parameters():
        for kind in ("exp_avg", "exp_avg_sq"):
            expected = optimizer.state[parameter][kind]
            torch.testing.assert_close(saved[f"{kind}/{name}"], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("why", ["none given", "prompt too long"])
def test_nothing_to_train_on_carries_everything_on(make_job, folders, why):
    before = make_job("before")
    run_update(before)
    settings = {"policy_dir": before.output_dir, "optimizer_dir": before.output_dir}
    if why == "none given":
        job = make_job("after", rollouts=(), **settings)
    else:
        long = [
            Rollout.model_validate({**r.model_dump(), "prompts": [{**g.model_dump(), "prompt_token_ids": (5,) * 65}]})
            for r in before.rollouts
            for g in r.prompts
        ]
        job = make_job("after", rollouts=tuple(long), **settings)
    result = run_update(job)
    assert result.metrics["skipped"] == 1
    assert result.metrics["left_out_prompt_too_long"] == len(job.rollouts)
    assert not result.rollouts
    assert not result.steps
    assert hashes(job.output_dir) == hashes(before.output_dir)


def test_a_first_update_without_rollouts_leaves_a_fresh_optimizer(make_job):
    job = make_job("empty", rollouts=())
    run_update(job)
    assert same_weights(job.output_dir, job.policy_dir)
    following = make_job("next").model_copy(update={"policy_dir": job.output_dir, "optimizer_dir": job.output_dir})
    assert [s.step for s in run_update(following).steps] == [1, 2, 3]


def test_one_long_prompt_is_left_out_and_counted(make_job, make_rollouts):
    tasks = make_rollouts()
    limit = sorted(t.longest_prompt for t in tasks)[-1]
    job = make_job(rollouts=tasks, max_prompt_tokens=16)
    assert limit <= 16
    long = tasks[0].model_dump()
    long["prompts"][0]["prompt_token_ids"] = (5,) * 17
    result = run_update(job.model_copy(update={"rollouts": (Rollout.model_validate(long), *tasks[1:])}))
    assert result.metrics["left_out_prompt_too_long"] == 1
    assert result.metrics["tasks"] == 5
    assert "task-0" not in {r.task_id for r in result.rollouts}


def test_unanimous_rewards_move_nothing(make_job, make_rollouts):
    raw = [r.model_dump() for r in make_rollouts()]
    for task in raw:
        for group in task["prompts"]:
            for verdict in group["verdicts"]:
                verdict["reward"] = 1.0
    job = make_job(rollouts=tuple(Rollout.model_validate(task) for task in raw), kl_coef=0.0)
    result = run_update(job)
    assert all(r.advantage == 0.0 for r in result.rollouts)
    assert all(s.loss == 0.0 and s.grad_norm == 0.0 for s in result.steps)
    assert same_weights(job.output_dir, job.policy_dir)


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


@pytest.fixture
def with_unused_parameter(monkeypatch):
    """Models have a parameter that takes part in nothing, until ``join`` is called."""
    load = backend_module.load_model
    joined = []

    def load_with_extra(folder, device):
        model = load(folder, device)
        model.model.norm.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
        if joined:
            model.model.norm.register_forward_hook(lambda module, _, output: output * module.unused.mean())
        return model

    monkeypatch.setattr(backend_module, "load_model", load_with_extra)
    return lambda: joined.append(True)


def test_a_parameter_without_gradient_has_no_state_and_may_get_one_later(make_job, with_unused_parameter):
    first = make_job("first", kl_coef=0.0)
    run_update(first)
    saved = load_file(first.output_dir / "optimizer/moments.safetensors")
    name = "model.norm.unused"
    assert (saved["step"], saved[f"step/{name}"]) == (3, 0)
    assert f"exp_avg/{name}" not in saved
    # carried on, also without training
    idle = make_job("idle", rollouts=(), policy_dir=first.output_dir, optimizer_dir=first.output_dir)
    run_update(idle)
    assert (
        hashes(idle.output_dir)["optimizer/moments.safetensors"]
        == hashes(first.output_dir)["optimizer/moments.safetensors"]
    )
    with_unused_parameter()
    joined = make_job("joined", kl_coef=0.0, policy_dir=first.output_dir, optimizer_dir=idle.output_dir)
    run_update(joined)
    saved = load_file(joined.output_dir / "optimizer/moments.safetensors")
    assert (saved["step"], saved[f"step/{name}"]) == (6, 3)
    assert saved[f"exp_avg/{name}"].shape == (3,)
    # a state that lacks what it should have is still refused
    del saved[f"exp_avg_sq/{name}"]
    save_file(saved, joined.output_dir / "optimizer/moments.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"'exp_avg_sq/model\.norm\.unused'"):
        run_update(make_job("last", kl_coef=0.0, policy_dir=first.output_dir, optimizer_dir=joined.output_dir))


@pytest.mark.parametrize(
    ("token", "length", "message"), [(61, 4, "vocabulary of 61"), (60, 140, "expected at most the model's 128")]
)
def test_rollouts_that_do_not_fit_the_model(make_job, make_rollouts, token, length, message):
    raw = make_rollouts(n=1)[0].model_dump()
    raw["prompts"][0]["prompt_token_ids"] = (token,) * length
    with pytest.raises(StageError, match=message):
        run_update(make_job(rollouts=(Rollout.model_validate(raw),), max_prompt_tokens=512))


def test_training_raises_the_reward(make_job, make_rollouts):
    """The sign is right: verdicts that were rewarded become likelier than those that were not."""
    job = make_job(epochs=5, kl_coef=0.0, learning_rate=3e-3)
    run_update(job)
    again = make_job("again", kl_coef=0.0).model_copy(update={"policy_dir": job.output_dir})
    before = {(r.task_id, r.sample): r for r in run_update(make_job("probe", kl_coef=0.0)).rollouts}
    gains = {0.0: [], 1.0: []}
    for r in run_update(again).rollouts:
        gains[r.reward].append(r.logprob_policy - before[r.task_id, r.sample].logprob_policy)
    assert sum(gains[1.0]) / len(gains[1.0]) > sum(gains[0.0]) / len(gains[0.0])


def test_steps_without_signal_are_left_out(make_job, make_rollouts):
    """Where all verdicts agree, old momentum must not move the weights either."""
    first = make_job("first", kl_coef=0.0, reference_dir=None)
    run_update(first)
    raw = [task.model_dump() for task in make_rollouts(n=8)]
    for task in raw[:4]:
        for verdict in task["prompts"][0]["verdicts"]:
            verdict["reward"] = 1.0
    tasks = tuple(Rollout.model_validate(task) for task in raw)
    options = {
        "kl_coef": 0.0,
        "reference_dir": None,
        "algorithm": "rloo",
        "train_batch_size": 4,
        "policy_dir": first.output_dir,
        "optimizer_dir": first.output_dir,
    }
    some = run_update(make_job("some", rollouts=tasks, **options))
    assert (some.metrics["steps_without_signal"], len(some.steps)) == (4.0, 4)
    none = make_job("none", rollouts=tasks[:4], **options)
    result = run_update(none)
    assert (result.metrics["steps_without_signal"], result.metrics["skipped"]) == (4.0, 1.0)
    assert same_weights(none.output_dir, first.output_dir)
    assert (
        hashes(none.output_dir)["optimizer/moments.safetensors"]
        == hashes(first.output_dir)["optimizer/moments.safetensors"]
    )


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


def test_supervised(make_job):
    """The warm-up makes the given responses likelier, whatever their rewards."""
    job = make_job("warm", objective="supervised", reference_dir=None, epochs=4, learning_rate=3e-3)
    result = run_update(job)
    assert result.steps[0].policy_loss == result.steps[0].loss > 0
    assert result.steps[-1].loss < result.steps[0].loss
    assert result.steps[0].kl is None
    assert (job.output_dir / "model.safetensors").exists()


def test_average(make_job, folders):
    job = make_job(average_dir=folders["llama"], average_decay=0.75)
    run_update(job)
    start, now, average = weights(folders["llama"]), weights(job.output_dir), weights(job.output_dir / "average")
    for name, value in average.items():
        torch.testing.assert_close(value, 0.75 * start[name] + 0.25 * now[name], rtol=1e-5, atol=1e-7)


class TestLora:
    """Adapters: only they are trained, they go on where they were, and the checkpoint holds merged weights."""

    def test_a_checkpoint_is_a_plain_model(self, make_job, kind, folders):
        job = make_job(policy_dir=folders[kind], reference_dir=folders[kind], lora=LoraConfig(rank=4))
        result = run_update(job)
        model = AutoModelForCausalLM.from_pretrained(job.output_dir)
        assert not any("lora" in name for name, _ in model.named_parameters())
        before, after = weights(folders[kind]), weights(job.output_dir)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {name for name in before if "proj" in name and name.endswith("weight")}
        assert result.steps[0].clip_fraction == 0.0  # new adapters change nothing
        assert json.loads((job.output_dir / "adapter/adapter_config.json").read_text())["r"] == 4

    def test_two_updates_equal_one_with_the_same_steps(self, make_job, make_rollouts):
        tasks = make_rollouts(n=4)
        options = {"lora": LoraConfig(rank=4), "kl_coef": 0.0, "reference_dir": None, "rollout_batch_size": 2}
        options |= {"algorithm": "rloo", "train_batch_size": 8, "learning_rate": 1e-5}
        whole = make_job("whole", rollouts=tasks, **options)
        run_update(whole)
        order = rollout_batches([None] * 4, size=2, seed=3, balance=False)
        halves = [tuple(tasks[i] for i in batch) for batch in order]
        one = make_job("one", rollouts=halves[0], **options)
        run_update(one)
        two = make_job("two", rollouts=halves[1], policy_dir=one.output_dir, optimizer_dir=one.output_dir, **options)
        run_update(two)
        state = json.loads((two.output_dir / "trainer_state.json").read_text())
        assert state["global_step"] == 2
        for name, value in weights(whole.output_dir).items():
            # the second update takes its ratios to the policy after the first: at this rate they are 1 within 1e-3
            torch.testing.assert_close(weights(two.output_dir)[name], value, rtol=0, atol=1e-6)
            if "proj" in name:
                assert not torch.equal(weights(one.output_dir)[name], weights(two.output_dir)[name])

    def test_same_job_same_bytes(self, make_job):
        jobs = [make_job(name, lora=LoraConfig(rank=2)) for name in ("a", "b")]
        for job in jobs:
            run_update(job)
        assert hashes(jobs[0].output_dir) == hashes(jobs[1].output_dir)

    def test_adapters_of_another_rank_are_refused(self, make_job):
        first = make_job("first", lora=LoraConfig(rank=2))
        run_update(first)
        other = make_job("other", lora=LoraConfig(rank=3), policy_dir=first.output_dir, optimizer_dir=first.output_dir)
        with pytest.raises(ArtifactError, match=r"expected those of rl\.lora\.rank"):
            run_update(other)

    def test_unknown_layers_are_refused(self, make_job):
        with pytest.raises(StageError, match="no adapter fits the model"):
            run_update(make_job(lora=LoraConfig(rank=2, targets=("nothing",))))
