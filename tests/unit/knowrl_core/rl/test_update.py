"""A whole update: rollouts and a policy in, a checkpoint and its log out."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from knowrl_core.rl import Rollout, UpdateResult
from knowrl_core.rl.update import run_update
from tests.unit.knowrl_core.rl.folders import hashes, same_weights, weights

FILES = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "optimizer",
    "tokenizer_config.json",
    "trainer_state.json",
]


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
