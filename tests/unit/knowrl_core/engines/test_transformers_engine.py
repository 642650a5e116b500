import copy
import itertools

import pytest
import torch
from transformers import DynamicCache

from knowrl_core.config.system import EngineConfig
from knowrl_core.engines import ChooseRequest, GenerateRequest, Turn, build_engine
from knowrl_core.engines.chat import render
from knowrl_core.engines.head import fp32_head
from knowrl_core.engines.kv_cache import new_cache
from knowrl_core.engines.prefill import compute_prefix, prefill
from knowrl_core.engines.text import TextEnd, end_tokens
from knowrl_core.engines.transformers_engine import TransformersEngine

SHOTS = "Judge the task. " * 4


def turns(text):
    return (Turn(role="user", content=text),)


@pytest.fixture
def requests():
    texts = [SHOTS + "Add two numbers.", "Why?", SHOTS + "Send an email to my boss. " * 8, "", SHOTS + "Plan a trip."]
    return [
        GenerateRequest(turns=turns(text), n=5, seed=seed, max_new_tokens=8 + 5 * seed)
        for seed, text in enumerate(texts)
    ]


@pytest.mark.parametrize("shared", [False, True])
def test_batches_do_not_change_samples(tiny, requests, shared):
    requests = [request for request in requests if not shared or request.turns[0].content.startswith(SHOTS)]
    expected = list(TransformersEngine(tiny.model, tiny.tokenizer, token_budget=8192).generate(requests))
    for budget in (64, 512):
        results = list(TransformersEngine(tiny.model, tiny.tokenizer, token_budget=budget).generate(requests))
        for result, other in zip(results, expected, strict=True):
            assert result.prompt_token_ids == other.prompt_token_ids
            for one, two in zip(result.samples, other.samples, strict=True):
                assert (one.text, one.token_ids, one.finish_reason) == (two.text, two.token_ids, two.finish_reason)
                assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)


def test_samples_keep_their_order_when_a_request_is_split_over_batches_of_others(tiny):
    counts = (1, 11, 3)
    requests = [GenerateRequest(turns=turns("Go" * n), n=n, seed=n, max_new_tokens=4 + n % 2) for n in counts]
    engines = [TransformersEngine(tiny.model, tiny.tokenizer, token_budget=budget) for budget in (100, 8192)]
    small, large = ([[s.token_ids for s in r.samples] for r in engine.generate(requests)] for engine in engines)
    assert small == large


def test_batches_do_not_change_choices(tiny, requests):
    asked = [ChooseRequest(turns=request.turns, choices=(" feasible", " infeasible", "x")) for request in requests]
    expected = list(TransformersEngine(tiny.model, tiny.tokenizer, token_budget=8192).choose(asked))
    for budget in (64, 512):
        results = TransformersEngine(tiny.model, tiny.tokenizer, token_budget=budget).choose(asked)
        for result, other in zip(results, expected, strict=True):
            for one, two in zip(result.token_logprobs, other.token_logprobs, strict=True):
                assert one == pytest.approx(two, abs=1e-4)


def test_each_views_prompts_share_their_own_beginning(tiny):
    orders = ["Judge the task: feasible or infeasible? ", "Judge the task: infeasible or feasible? "]
    texts = [order * 2 + task for task in ("Add.", "Send an email now.", "Why?", "Plan a trip.") for order in orders]
    asked = [ChooseRequest(turns=turns(text), choices=(" feasible", " infeasible")) for text in [*texts, "Alone"]]
    engine = TransformersEngine(tiny.model, tiny.tokenizer)
    seen = []
    handle = tiny.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True
    )
    try:
        together = list(engine.choose(asked))
    finally:
        handle.remove()
    for result, request in zip(together, asked, strict=True):
        (alone,) = engine.choose([request])
        assert result.prompt_token_ids == alone.prompt_token_ids
        for one, two in zip(result.token_logprobs, alone.token_logprobs, strict=True):
            assert one == pytest.approx(two, abs=1e-4)
    lengths = [len(result.prompt_token_ids) for result in together]
    # What each order's prompts share is computed once, and the prompt that is like no other by itself.
    once = [ids.numel() for ids in seen if len(ids) == 1]
    assert len(once) == 3
    assert lengths[-1] in once
    assert sum(ids.numel() for ids in seen) < sum(lengths) * 0.7


def test_results_come_as_they_are_ready(tiny, requests):
    engine = TransformersEngine(tiny.model, tiny.tokenizer, token_budget=64)
    calls = []
    handle = tiny.model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        seen = [len(calls) for _ in engine.generate(requests)]
    finally:
        handle.remove()
    assert all(earlier < later for earlier, later in itertools.pairwise(seen))


def test_a_common_prefix_is_computed_once(tiny):
    prompts = [render(tiny.tokenizer, turns(SHOTS + text)) for text in ("Add.", "Send an email now.", "Why")]
    prefix = compute_prefix(tiny.model, prompts)
    assert len(prefix.ids) > 16
    assert all(tuple(prompt[: len(prefix.ids)]) == prefix.ids for prompt in prompts)
    filled = prefill(tiny.model, prompts, prefix)
    assert filled.lengths.tolist() == [len(prompt) for prompt in prompts]
    for row, prompt in enumerate(prompts):
        with torch.inference_mode():
            expected = tiny.model(torch.tensor([prompt])).logits[0, -1]
        torch.testing.assert_close(filled.logits[row], expected, atol=1e-4, rtol=0)
    again = prefill(tiny.model, prompts, prefix)  # the prefix's own cache was not touched
    torch.testing.assert_close(again.logits, filled.logits)


def test_equal_prompts_keep_their_last_token(tiny):
    prompts = [render(tiny.tokenizer, turns(SHOTS))] * 3
    prefix = compute_prefix(tiny.model, prompts)
    assert len(prefix.ids) == len(prompts[0]) - 1
    assert prefill(tiny.model, prompts, prefix).logits.shape[0] == 3


def test_the_cache_holds_what_the_stock_cache_holds(tiny):
    ours, stock = new_cache(), DynamicCache()
    ids = torch.arange(100, 106).view(2, 3)
    with torch.inference_mode():
        for step in range(80):  # beyond the spare room
            for cache in (ours, stock):
                tiny.model(input_ids=ids + step, past_key_values=cache, use_cache=True)
            if step == 3:
                ours.batch_select_indices(torch.tensor([1, 0]))
                stock.batch_select_indices(torch.tensor([1, 0]))
    for mine, theirs in zip(ours.layers, stock.layers, strict=True):
        torch.testing.assert_close(mine.keys, theirs.keys)
        torch.testing.assert_close(mine.values, theirs.values)


def test_bf16_logits_are_widened_where_they_are_read_exactly(tiny):
    model = copy.deepcopy(tiny.model).to(torch.bfloat16)
    ids = torch.arange(100, 120).view(1, -1)
    with torch.inference_mode():
        coarse = model(ids).logits
        with fp32_head(model):
            fine = model(ids).logits
        assert torch.equal(model(ids).logits, coarse)
    assert fine.dtype == torch.float32
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(fine, coarse.float(), atol=0.1, rtol=1e-2)
    assert not torch.equal(fine, fine.bfloat16().float())


def test_all_end_tokens_count(tiny):
    config = copy.deepcopy(tiny.model.generation_config)
    config.eos_token_id = [0, 7]
    assert end_tokens(config, tiny.tokenizer) == {0, 7, tiny.tokenizer.eos_token_id}


def test_the_first_of_several_stop_strings_cuts(tiny):
    end = TextEnd(tiny.tokenizer, ("river", " red", ""), frozenset({2}))
    ids = tiny.tokenizer(" the red river").input_ids
    assert [end.stopped(ids[: place + 1]) for place in range(len(ids))] == [False, True, True]
    assert end.text(ids) == " the"
    assert TextEnd(tiny.tokenizer, (), frozenset({2})).text([*ids, 2]) == " the red river"


def test_the_config_makes_an_engine(tiny_path):
    engine = build_engine(EngineConfig(dtype="bf16", token_budget=128), tiny_path, device="cpu")
    (result,) = engine.generate([GenerateRequest(turns=turns("Hello"), n=4, seed=1, max_new_tokens=5)])
    assert len(result.samples) == 4
    assert engine.model.dtype == torch.bfloat16
