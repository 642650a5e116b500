"""Tiny random models and rollouts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl import FlatVerdict, Rollout, UpdateJob, Verdict

VOCABULARY = 61
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,  # far from uniform, so that errors of the mask show
}


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Models this small only lose by waiting for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(kind: str, seed: int = 0) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "llama":
            model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True))
        else:
            model = Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=False))
    return model.float().eval()


@pytest.fixture(params=["llama", "qwen2"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    return build


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved models: llama, qwen2, and another llama to be a reference."""
    root = tmp_path_factory.mktemp("models")
    for name, kind, seed in [("llama", "llama", 0), ("qwen2", "qwen2", 0), ("other", "llama", 7)]:
        build(kind, seed).save_pretrained(root / name)
        (root / name / "tokenizer_config.json").write_text("{}", encoding="utf-8")
        (root / name / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
        (root / name / "notes.txt").write_text("stays behind", encoding="utf-8")
    return {path.name: path for path in root.iterdir()}


def rollouts(n: int = 6, k: int = 4, seed: int = 0, views: int = 1, longest: int = 5) -> tuple[Rollout, ...]:
    """Random tasks. Responses come from three strings a prompt, so that some are the same."""
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(t) for t in rng.integers(3, VOCABULARY, rng.integers(low, high + 1)))

    made = []
    for i in range(n):
        prompts = [tokens(3, 12) for _ in range(views)]
        strings = [tokens(1, longest) for _ in range(3)]
        flat = []
        for j in range(k):
            response = strings[int(rng.integers(3))]
            logprobs = tuple(float(x) for x in rng.normal(-3, 1, len(response)))
            verdict = Verdict(
                sample=j,
                response_token_ids=response,
                engine_logprobs=logprobs,
                reward=float(rng.integers(2)),
            )
            flat.append(FlatVerdict(prompts[j % views], verdict))
        made.append(Rollout.from_verdicts(f"task-{i}", flat, label=("feasible", "infeasible", None)[i % 3]))
    return tuple(made)


@pytest.fixture(scope="session")
def make_rollouts() -> Callable[..., tuple[Rollout, ...]]:
    return rollouts


@pytest.fixture
def make_job(folders: dict[str, Path], tmp_path: Path) -> Callable[..., UpdateJob]:
    """A job on the tiny Llama; keywords of the job by their names, the others go into its RLConfig."""

    def make(name: str = "out", **changes: Any) -> UpdateJob:
        fields: dict[str, Any] = {
            "policy_dir": folders["llama"],
            "reference_dir": folders["other"],
            "optimizer_dir": None,
            "output_dir": tmp_path / name,
            "device": "cpu",
            "shuffle_seed": 3,
        }
        rl: dict[str, Any] = {
            "learning_rate": 1e-3,
            "kl_coef": 0.05,
            "rollout_batch_size": 4,
            "train_batch_size": 8,
            "micro_token_budget": 64,
            "max_prompt_tokens": 64,
        }
        for key, value in changes.items():
            (fields if key in UpdateJob.model_fields else rl)[key] = value
        return UpdateJob(**({"rollouts": rollouts()} | fields), rl=RLConfig(**rl))

    return make
