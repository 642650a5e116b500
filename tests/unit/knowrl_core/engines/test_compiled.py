"""torch.compile around the attention."""

import shutil

import pytest
import torch

from knowrl_core.config import EngineConfig
from knowrl_core.engines import ChooseRequest, GenerateRequest, Turn, build_engine
from knowrl_core.engines.compiled import compile_layers
from knowrl_core.models.load import load_policy

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")]


def turns(number):
    return (Turn(role="user", content=f"Count to {number}."),)


def test_compiled_layers_give_the_same_answers(tiny_path):
    plain, compiled = (
        build_engine(EngineConfig(dtype="fp32", threads=1, compile=on), tiny_path, device="cpu") for on in (False, True)
    )
    assert (plain.name, compiled.name) == ("transformers/fp32", "transformers/fp32/compiled")
    choices = [ChooseRequest(turns=turns(n), choices=(" yes", " no")) for n in range(5)]
    for one, two in zip(plain.choose(choices), compiled.choose(choices), strict=True):
        assert one.token_ids == two.token_ids
        for mine, theirs in zip(one.token_logprobs, two.token_logprobs, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4)
    asks = [GenerateRequest(turns=turns(n), n=n, seed=n, max_new_tokens=6) for n in (1, 3, 2)]
    first = list(compiled.generate(asks))
    assert first == list(compiled.generate(asks))
    same = [a.token_ids == b.token_ids for x, y in zip(first, plain.generate(asks), strict=True)
            for a, b in zip(x.samples, y.samples, strict=True)]  # fmt: skip
    assert sum(same) >= 5


def test_every_layer_is_compiled_but_for_its_attention(tiny_path):
    model = load_policy(tiny_path, device="cpu", dtype=torch.float32)
    assert compile_layers(model) == 3 * model.config.num_hidden_layers  # two norms and the feed-forward part
    assert all(layer.self_attn._compiled_call_impl is None for layer in model.model.layers)
