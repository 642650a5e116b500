"""The real model: does what was converted still think, and does the engine read it right?"""

import math

import pytest
import torch

from benchmarks.sampling_prompts import prompts_of
from knowrl_core.engines import ChooseRequest, GenerateRequest, Turn
from knowrl_core.engines.transformers_engine import TransformersEngine
from knowrl_core.models.load import load_policy

pytestmark = [pytest.mark.model, pytest.mark.slow]


def user(text):
    return Turn(role="user", content=text)


@pytest.fixture(scope="module")
def engine(smollm2):
    return TransformersEngine(smollm2.model, smollm2.tokenizer)


def test_it_knows_the_capital_of_france(engine):
    (result,) = engine.generate(
        [GenerateRequest(turns=(user("What is the capital of France?"),), seed=0, temperature=0, max_new_tokens=20)]
    )
    assert result.samples[0].text == "The capital of France is Paris."
    assert result.samples[0].finish_reason == "stop"


def test_special_tokens_and_config_are_those_of_the_original(smollm2):
    tokenizer, config = smollm2.tokenizer, smollm2.model.config
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert smollm2.model.generation_config.eos_token_id == 2
    assert config.max_position_embeddings == tokenizer.model_max_length == 8192
    assert config.tie_word_embeddings
    assert config.rope_parameters["rope_theta"] == 100_000
    assert sum(parameter.numel() for parameter in smollm2.model.parameters()) == 134_515_008


def test_the_chat_template_renders_and_tokenises_as_chatml(smollm2):
    text = smollm2.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
    )
    ids = smollm2.tokenizer(text, add_special_tokens=False).input_ids
    assert (ids.count(1), ids.count(2)) == (2, 2)


@pytest.mark.parametrize("text", ["Hello world", "  two spaces\n\nnew 12345 lines é漢字🎉\t", "½½ ²³ don't", ""])
def test_text_survives_the_tokenizer(smollm2, text):
    ids = smollm2.tokenizer(text).input_ids
    assert smollm2.tokenizer.decode(ids) == text


def test_digits_are_tokens_of_their_own(smollm2):
    assert len(smollm2.tokenizer("a 2026b").input_ids) == len(["a", " ", "2", "0", "2", "6", "b"])


def verdicts(engine):
    tasks = ("What is two plus two?", "Write a poem about rain.", "Book me a table for tonight.", "Call my mother.")
    turns = [
        (user(f"Can a language model do this task? {task}"), Turn(role="assistant", content="It is")) for task in tasks
    ]
    requests = [ChooseRequest(turns=turn, choices=(" feasible", " infeasible")) for turn in turns]
    return [[sum(logprobs) for logprobs in result.token_logprobs] for result in engine.choose(requests)]


def test_labels_hold_little_mass_when_asked_freely(engine):
    # Why constrained verdicts exist.
    masses = [sum(math.exp(logprob) for logprob in pair) for pair in verdicts(engine)]
    assert all(0 < mass < 0.5 for mass in masses)


def test_bf16_agrees_with_fp32(smollm2, engine):
    half = load_policy(smollm2.path, device="cpu", dtype=torch.bfloat16)
    rough = verdicts(TransformersEngine(half, smollm2.tokenizer))
    for one, two in zip(rough, verdicts(engine), strict=True):
        assert one[0] - one[1] == pytest.approx(two[0] - two[1], abs=0.3)


def test_samples_do_not_depend_on_the_token_budget(smollm2):
    requests = [
        GenerateRequest(turns=(user(f"Name {count} fruits."),), n=4, seed=count, max_new_tokens=16)
        for count in range(1, 7)
    ]
    small, large = (
        [
            sample.text
            for result in TransformersEngine(smollm2.model, smollm2.tokenizer, token_budget=budget).generate(requests)
            for sample in result.samples
        ]
        for budget in (128, 8192)
    )
    assert small == large


@pytest.mark.parametrize(("workload", "count", "tokens"), [("free", 20, 16), ("introspection", 10, 64)])
def test_answers_do_not_depend_on_the_token_budget(smollm2, workload, count, tokens):
    """Texts of prompts with common examples are the same, and label probabilities to 1e-4."""
    small, large = (TransformersEngine(smollm2.model, smollm2.tokenizer, token_budget=budget) for budget in (512, 8192))
    prompts = prompts_of(workload, count)
    asks = [GenerateRequest(turns=turns, n=2, seed=i, max_new_tokens=tokens) for i, turns in enumerate(prompts)]
    texts = [
        [sample.text for result in engine.generate(asks) for sample in result.samples] for engine in (small, large)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 10
    choices = [ChooseRequest(turns=turns, choices=(" feasible", " infeasible")) for turns in prompts]
    for one, two in zip(small.choose(choices), large.choose(choices), strict=True):
        for mine, theirs in zip(one.token_logprobs, two.token_logprobs, strict=True):
            assert [math.exp(x) for x in mine] == pytest.approx([math.exp(x) for x in theirs], abs=1e-4)
