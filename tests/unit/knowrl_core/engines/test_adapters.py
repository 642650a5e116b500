"""LoRA adapters as a server takes them, checked against the weights that they stand for."""

import json

import pytest
import torch

from knowrl_core.config.rl import LoraConfig
from knowrl_core.engines.vllm.adapters import largest_rank, read_adapter, write_difference
from knowrl_core.models.load import load_policy
from tests.adapted import write_adapted

CONFIG = LoraConfig(rank=3, alpha=5.0)


@pytest.fixture
def checkpoint(tiny_path, tmp_path):
    """Make a checkpoint with merged weights and adapter, from a seed."""

    def make(seed, config=CONFIG):
        folder = tmp_path / f"checkpoint-{seed}-{config.rank}"
        return write_adapted(tiny_path, folder, config, scale=0.1, names="lora_", seed=seed)

    return make


def weights(folder):
    return dict(load_policy(folder, device="cpu", dtype=torch.float32).named_parameters())


def test_the_difference_leads_from_one_policy_to_the_other(checkpoint, tmp_path):
    one, two = checkpoint(1), checkpoint(2)
    new, old = read_adapter(two), read_adapter(one)
    (tmp_path / "difference").mkdir()
    found = write_difference(new, old, tmp_path / "difference")
    again = json.loads((tmp_path / "difference" / "adapter_config.json").read_text())
    assert again["r"] == 6
    assert again["lora_alpha"] / again["r"] == pytest.approx(5.0 / 3)
    before, after = weights(one), weights(two)
    layers = {name.removesuffix(".lora_A.weight") for name in found.tensors if name.endswith("lora_A.weight")}
    assert layers
    for layer in layers:
        product = found.tensors[f"{layer}.lora_B.weight"] @ found.tensors[f"{layer}.lora_A.weight"]
        moved = after[f"{layer}.weight"] - before[f"{layer}.weight"]
        torch.testing.assert_close(again["lora_alpha"] / again["r"] * product, moved, atol=1e-6, rtol=1e-5)
        assert moved.abs().max() > 1e-3


def test_adapters_of_other_scale_or_layers_have_no_difference(checkpoint, tmp_path):
    one = read_adapter(checkpoint(1))
    assert write_difference(one, read_adapter(checkpoint(2, LoraConfig(rank=2, alpha=5.0))), tmp_path) is None
    other = read_adapter(checkpoint(3, LoraConfig(rank=3, alpha=5.0, targets=("q_proj",))))
    assert write_difference(one, other, tmp_path) is None


def test_a_name_belongs_to_the_contents(checkpoint, tiny_path):
    one, two = checkpoint(1), checkpoint(2)
    assert read_adapter(one).name == read_adapter(one).name != read_adapter(two).name
    assert read_adapter(tiny_path) is None


def test_ranks_are_those_that_vllm_takes():
    assert [largest_rank(rank) for rank in (0, 1, 4, 16, 17, 256, 257)] == [None, 8, 8, 32, 64, 512, None]
