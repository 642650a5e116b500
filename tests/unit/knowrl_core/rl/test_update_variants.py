"""Updates of other kinds: supervised, averaged weights, LoRA, parameters without a gradient, steps without a signal."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from knowrl_core.config.rl import LoraConfig
from knowrl_core.errors import ArtifactError, StageError
from knowrl_core.rl import Rollout
from knowrl_core.rl import backend as backend_module
from knowrl_core.rl.batches import rollout_batches
from knowrl_core.rl.update import run_update
from tests.unit.knowrl_core.rl.folders import hashes, same_weights, weights


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
