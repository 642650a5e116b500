import subprocess
import sys

import pytest
import torch

from knowrl_core.engines import GenerateRequest, Turn
from knowrl_core.engines.transformers_engine import TransformersEngine
from knowrl_core.models.tiny_build import write
from knowrl_core.models.words import WORDS
from knowrl_core.storage.files import sha256_file


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_it_is_the_same_each_time_whatever_the_global_random_state(tmp_path, architecture):
    hashes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        write(folder, architecture)
        hashes.append({file.name: sha256_file(file) for file in folder.iterdir()})
    assert hashes[0] == hashes[1]


def test_standard_output_is_left_to_results(tmp_path):
    # In a process of its own: DeepSpeed says what it found once, when it is loaded.
    code = "import pathlib, sys; from knowrl_core.models.tiny_build import write; "
    code += "write(pathlib.Path(sys.argv[1]), 'llama')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_its_weights_and_vocabulary_are_pinned(tiny_path):
    # On every machine: if these change, _LAYOUT in tiny.py has to be raised.
    assert (
        sha256_file(tiny_path / "model.safetensors")
        == "224e62b3a00632ca828437f83696c3e44761f4fc4a1f19edb3ac45f2625c718a"
    )
    assert (
        sha256_file(tiny_path / "tokenizer.json") == "505206adcffa795055a5dd9d0195266916f942be92cb0185e4da702392d9d6c0"
    )


def test_words_are_tokens(tiny):
    pieces = [len(tiny.tokenizer(f" {word}").input_ids) for word in WORDS]
    assert pieces.count(1) > 0.95 * len(WORDS)
    assert len(tiny.tokenizer(" feasible").input_ids) == len(tiny.tokenizer(" infeasible").input_ids) == 1


@pytest.mark.parametrize("text", ["plain words", " two  spaces\n\tand é漢字🎉\x00", "", "1. 23 <tag>"])
def test_text_survives_the_tokenizer(tiny, text):
    assert tiny.tokenizer.decode(tiny.tokenizer(text).input_ids) == text


def test_samples_look_like_tasks(tiny):
    engine = TransformersEngine(tiny.model, tiny.tokenizer)
    opening = Turn(role="assistant", content="1.")
    requests = [
        GenerateRequest(turns=(Turn(role="user", content=f"Write task {i}."), opening), n=8, seed=i, max_new_tokens=64)
        for i in range(8)
    ]
    texts = [sample.text for result in engine.generate(requests) for sample in result.samples]
    words = [word for text in texts for word in text.split()]
    assert sum(word in WORDS for word in words) > 0.8 * len(words)
    assert 5 < len(words) / len(texts) < 30
    assert sum(len(text.split()) >= 3 for text in texts) > 0.5 * len(texts)
    assert len(set(texts)) > 0.8 * len(texts)


def test_prompts_make_a_difference(tiny):
    def distribution(text):
        ids = tiny.tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            return torch.softmax(tiny.model(ids).logits[0, -1], dim=-1)

    one, two = distribution("Judge: add two numbers.\nVerdict:"), distribution("Judge: send an email.\nVerdict:")
    assert (one - two).abs().sum() / 2 > 0.3
