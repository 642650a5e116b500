"""Models that the tests share. They live in the usual cache (KNOWRL_CACHE), so only the first test run builds them.

PyTorch is imported inside the fixtures: most tests need none of it.
"""

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
