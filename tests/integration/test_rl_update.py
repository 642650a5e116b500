"""The update on the real SmolLM2."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from knowrl_core.config.model import ModelConfig
from knowrl_core.config.rl import RLConfig
from knowrl_core.models import resolve_model
from knowrl_core.rl import FlatVerdict, Rollout, UpdateJob, Verdict
from knowrl_core.rl.checkpoint import load_model
from knowrl_core.rl.forward import PackedModel
from knowrl_core.rl.packing import PromptUnit, pack
from knowrl_core.rl.update import run_update

pytestmark = pytest.mark.model

TASKS = [
    "Name three rivers that flow through more than one country.",
    "Tell me what the person next to me is thinking right now.",
    "Write a short poem about the first snow of winter, with four lines and a rhyme at the end of every second one.",
]
ANSWERS = ["feasible", "infeasible", "not feasible, since I cannot see it"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine two threads wait for each other for longer than one works."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(resolve_model(ModelConfig(path="smollm2-135m-instruct")).path)


@pytest.fixture(scope="module")
def units(folder: Path) -> list[PromptUnit]:
    """Prompts as the chat template renders them; 4 responses each, some of them the same."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = np.random.default_rng(0)
    made, cell = [], 0
    for task in TASKS:
        turns = [{"role": "user", "content": f"Can you do this? {task}"}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text, add_special_tokens=False).input_ids
        answers = [ANSWERS[int(i)] for i in rng.integers(3, size=4)]
        responses = [tuple(tokenizer(answer + "<|im_end|>", add_special_tokens=False).input_ids) for answer in answers]
        cells = []
        for response in responses:
            cells.append(cell)
            cell += len(response)
        made.append(PromptUnit(tuple(prompt), tuple(responses), tuple(cells)))
    return made


def gradient(model: PreTrainedModel) -> torch.Tensor:
    flat = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return flat


def packed_gradient(
    model: PreTrainedModel, units: list[PromptUnit], weights: torch.Tensor, budget: int
) -> torch.Tensor:
    run = PackedModel(model, "fp32")
    for packed in pack(units, budget):
        logprobs = run(packed).logprobs
        (logprobs * weights[packed.cell].to(logprobs)).sum().backward()
    return gradient(model)


def plain_gradient(model: PreTrainedModel, units: list[PromptUnit], weights: torch.Tensor) -> torch.Tensor:
    """One sequence a verdict, nothing shared."""
    for unit in units:
        for response, cell in zip(unit.responses, unit.cells, strict=True):
            logits = model(torch.tensor([unit.prompt + response]), use_cache=False).logits[0, len(unit.prompt) - 1 : -1]
            logprobs = logits.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)]
            (logprobs * weights[cell : cell + len(response)].to(logprobs)).sum().backward()
    return gradient(model)


def float64_norm(self: LlamaRMSNorm, hidden: torch.Tensor) -> torch.Tensor:
    """RMSNorm without the library's cast to float32, which leaves 2e-7 of noise in a float64 model."""
    return self.weight * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


@pytest.mark.slow
def test_packed_and_plain_gradients_agree(
    folder: Path, units: list[PromptUnit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packing is exact in float64; in float32 both forms are as far from it as rounding takes them.

    On this model float32 puts the plain form itself 0.8e-5 (eager attention) to 1.4e-5 (sdpa) from its float64
    gradient, on a processor with AVX-512; with AVX2 the two forms were 1.5e-5 to 2e-5 apart. So a float32 comparison
    cannot tell an error of 1e-5 in the packing from rounding, and the sharp bound stands on float64.
    """
    units = units[:2]
    weights = torch.randn(sum(len(r) for u in units for r in u.responses), generator=torch.Generator().manual_seed(0))
    model = load_model(folder, "cpu")
    rounded = [packed_gradient(model, units, weights, budget) for budget in (64, 4096)]
    plain = plain_gradient(model, units, weights)
    model.double()
    monkeypatch.setattr(LlamaRMSNorm, "forward", float64_norm)
    exact = plain_gradient(model, units, weights)
    for budget in (64, 4096):
        assert (packed_gradient(model, units, weights, budget) - exact).norm() <= 1e-10 * exact.norm()
    for packed in rounded:
        assert (packed - plain).norm() <= 5e-5 * plain.norm()
        assert (packed - exact).norm() <= 5e-5 * exact.norm()


def test_update(folder: Path, units: list[PromptUnit], tmp_path: Path) -> None:
    rollouts = tuple(
        Rollout.from_verdicts(
            f"task-{i}",
            [
                FlatVerdict(
                    unit.prompt,
                    Verdict(
                        sample=j,
                        response_token_ids=response,
                        engine_logprobs=(-1.0,) * len(response),
                        reward=float((i + j) % 2),
                    ),
                )
                for j, response in enumerate(unit.responses)
            ],
        )
        for i, unit in enumerate(units)
    )
    job = UpdateJob(
        policy_dir=folder,
        reference_dir=folder,
        optimizer_dir=None,
        output_dir=tmp_path / "checkpoint",
        rollouts=rollouts,
        rl=RLConfig(learning_rate=1e-6, kl_coef=1e-3, train_batch_size=8),
        device="cpu",
        shuffle_seed=0,
    )
    result = run_update(job)
    assert len(result.steps) == 2
    assert result.steps[0].clip_fraction == 0.0
    assert result.steps[0].kl == 0.0
    assert all(np.isfinite(value) for value in result.metrics.values())
    # the tied head is one weight and stays so
    model = AutoModelForCausalLM.from_pretrained(job.output_dir)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (folder, job.output_dir)]
    turns = [{"role": "user", "content": "Hello"}]
    assert len({t.apply_chat_template(turns, tokenize=False) for t in tokenizers}) == 1
