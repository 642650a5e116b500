"""Responses that share their prompt's cache, against responses that have it each."""

import copy
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from knowrl_core.engines.continuation import Expanded, Groups, Shared, can_share, going_on
from knowrl_core.engines.prefill import Prefix, prefill

lengths = st.lists(st.integers(1, 12), min_size=1, max_size=4)
quick = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=["tiny", "tiny_qwen2"])
def model(request):
    return request.getfixturevalue(request.param).model


def go_on(model, prompts, owners, kept, way):
    """Logits of three steps, after the second of which rows leave."""
    draws = torch.Generator().manual_seed(0)
    prefilled = prefill(model, prompts, Prefix((), None))
    owners = torch.tensor(owners)
    positions = prefilled.lengths[owners]
    found = []
    with way(model, prefilled, owners) as context:
        for _ in range(2):
            found.append(context.step(torch.randint(3, 60, (len(positions),), generator=draws), positions))
            positions = positions + 1
        context.keep(torch.tensor(kept))
        found.append(context.step(torch.randint(3, 60, (len(kept),), generator=draws), positions[kept]))
    return type(context), found


@quick
@given(lengths=lengths, data=st.data())
def test_both_ways_give_the_same(model, lengths, data):
    """Whatever the lengths of the prompts, who continues which, and who leaves."""
    prompts = [[3 + (7 * number + place) % 50 for place in range(length)] for number, length in enumerate(lengths)]
    owners = data.draw(st.lists(st.integers(0, len(prompts) - 1), min_size=1, max_size=9))
    kept = sorted(data.draw(st.sets(st.integers(0, len(owners) - 1), min_size=1)))
    with torch.inference_mode():
        _, expected = go_on(model, prompts, owners, kept, lambda *args: nullcontext(Expanded(*args)))
        kind, got = go_on(model, prompts, owners, kept, going_on)
    assert kind is Shared
    for mine, plain in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-4)


def test_the_model_is_left_as_it_was(model):
    before = model.config._attn_implementation
    with torch.inference_mode():
        go_on(model, [[3, 4], [5]], [0, 1, 1], [0], going_on)
    assert model.config._attn_implementation == before


def test_bf16_keeps_its_scores_in_float32(model):
    rough = copy.deepcopy(model).bfloat16()
    vars(rough).pop("_knowrl_shares_prompts", None)
    assert can_share(rough)


def test_a_model_that_does_more_in_its_attention_goes_the_other_way():
    """Gemma 2 caps its scores: it must not be computed without."""
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    config = AutoConfig.for_model("gemma2", vocab_size=64, hidden_size=16, intermediate_size=32, **sizes)
    torch.manual_seed(0)
    capped = AutoModelForCausalLM.from_config(config).eval()
    assert not can_share(capped)
    with torch.inference_mode():
        kind, _ = go_on(capped, [[3, 4], [5]], [0, 1, 1], [0, 2], going_on)
    assert kind is Expanded


def test_rows_find_their_prompt_and_back():
    owners = torch.tensor([2, 0, 2, 2, 0])
    groups = Groups(owners, torch.zeros(3, 1, 1, 1))
    rows = torch.arange(5.0)[:, None, None, None].expand(5, 2, 3, 4)
    cells = groups.gather(rows)
    assert cells.shape == (3, 2, 3 * 3, 4)
    assert torch.equal(groups.scatter(cells, 3), rows)
    assert sorted(cells[2, 0, :, 0].tolist()) == [0.0] * 3 + [2.0] * 3 + [3.0] * 3
