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
            # Not log_softmax: over 49,152 tokens in float32 it alone puts the gradient 1.5e-5 from that in float64.
            logprobs = logits[torch.arange(len(response)), torch.tensor(response)] - logits.logsumexp(-1)
            (logprobs * weights[cell : cell + len(response)].to(logprobs)).sum().backward()
    return gradient(model)


def one_by_one(units: list[PromptUnit]) -> list[PromptUnit]:
    """Each response with a prompt of its own."""
    return [
        PromptUnit(unit.prompt, (response,), (cell,))
        for unit in units
        for response, cell in zip(unit.responses, unit.cells, strict=True)
    ]


def float64_norm(self: LlamaRMSNorm, hidden: torch.Tensor) -> torch.Tensor:
    """RMSNorm without the library's cast to float32, which leaves 2e-7 of noise in a float64 model."""
    return self.weight * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


@pytest.mark.slow
def test_packed_and_plain_gradients_agree(
    folder: Path, units: list[PromptUnit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed, one verdict a pass, and the plain model agree to 1e-5 in float32, and as well with float64.

    Seen: 4e-6 between any two of them. In float64 they agree to rounding.
    """
    units = [PromptUnit(unit.prompt, unit.responses[:3], unit.cells[:3]) for unit in units[:2]]
    weights = torch.randn(
        units[-1].cells[-1] + len(units[-1].responses[-1]), generator=torch.Generator().manual_seed(0)
    )
    model = load_model(folder, "cpu")
    rounded = [packed_gradient(model, units, weights, budget) for budget in (64, 4096)]
    alone = packed_gradient(model, one_by_one(units), weights, 1)
    plain = plain_gradient(model, units, weights)
    model.double()
    monkeypatch.setattr(LlamaRMSNorm, "forward", float64_norm)
    exact = plain_gradient(model, units, weights)
    for budget in (64, 4096):
        assert (packed_gradient(model, units, weights, budget) - exact).norm() <= 1e-10 * exact.norm()
    for packed in rounded:
        for unpacked in (alone, plain, exact):
            assert (packed - unpacked).norm() <= 1e-5 * unpacked.norm()


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
