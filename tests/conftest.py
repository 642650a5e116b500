"""Models that the tests share. They live in the usual cache (KNOWRL_CACHE), so only the first test run builds them.

PyTorch is imported inside the fixtures: most tests need none of it.
"""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest


def _loaded(path: Path) -> SimpleNamespace:
    import torch

    from knowrl_core.models.load import load_policy, load_tokenizer, setup_torch

    setup_torch(1)  # tests run side by side; one thread is also the fastest for a tiny model
    return SimpleNamespace(
        path=path, model=load_policy(path, device="cpu", dtype=torch.float32), tokenizer=load_tokenizer(path)
    )


@pytest.fixture(scope="session")
def tiny_path() -> Path:
    """Folder of the tiny random Llama."""
    from knowrl_core.models.tiny import tiny_folder

    return tiny_folder()[0]


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """Folder of SmolLM2-135M-Instruct; tests that use it carry the marker ``model``."""
    from knowrl_core.models.smollm2 import smollm2_folder

    return smollm2_folder()[0]


@pytest.fixture(scope="session")
def tiny(tiny_path: Path) -> SimpleNamespace:
    """The tiny random Llama, loaded in fp32: path, model, tokenizer. Do not change its weights."""
    return _loaded(tiny_path)


@pytest.fixture(scope="session")
def tiny_qwen2() -> SimpleNamespace:
    """As ``tiny``, of the Qwen2 architecture: untied embeddings, biases in the attention."""
    from knowrl_core.models.tiny import tiny_folder

    return _loaded(tiny_folder("qwen2")[0])


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> SimpleNamespace:
    """SmolLM2-135M-Instruct, loaded in fp32: path, model, tokenizer. Do not change its weights."""
    return _loaded(smollm2_path)


@pytest.fixture(scope="session")
def vllm_config():
    """The config of an engine with a vLLM server of its own; skips where the environment is not built."""
    from knowrl_core.config import EngineConfig
    from knowrl_core.config.system import VllmConfig

    python = Path(os.environ.get("KNOWRL_VLLM_PYTHON", Path(__file__).parents[1] / ".venv-vllm/bin/python"))
    if not python.exists():
        pytest.skip(f"{python} is not there: make vllm builds it, or KNOWRL_VLLM_PYTHON names another one")
    vllm = VllmConfig(python=str(python), args=("--enforce-eager",), retries=2)
    return EngineConfig(kind="vllm", dtype="fp32", threads=1, vllm=vllm)
