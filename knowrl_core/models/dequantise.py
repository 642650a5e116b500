"""Turns the GGUF file of SmolLM2-135M-Instruct into a model folder of plain bf16 safetensors.

The model was published in bf16. Dequantised 4-bit weights hold a few bits more, and one in twelve of them lies exactly
half-way between two bf16 numbers: with such a start the smallest step in fp32 flips all of these at once wherever the
weights are used in bf16, always in the direction of the step, which is thousands of times larger than the step itself.
Rounding once, here, takes that away.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from knowrl_core.errors import InputError
from knowrl_core.models.quiet import quiet

_SPECIAL_IDS = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}


def convert(gguf: Path, folder: Path) -> None:
    """Write the GGUF's model as bf16 safetensors, with its tokenizer."""
    with quiet():
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        source = loaded.config.to_dict()
        for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
            source.pop(key, None)  # they would make the saved folder point back to the GGUF
        source["rms_norm_eps"] = 1e-5  # GGUF keeps it in float32, which reads back as 9.99999974738e-06
        source["architectures"] = ["LlamaForCausalLM"]
        source["dtype"] = "bfloat16"
        LlamaConfig.from_dict(source).save_pretrained(folder)
        loaded.generation_config.save_pretrained(folder)
        # Written by hand: the loaded model still counts as quantised, and save_pretrained refuses to save it. The head
        # is tied to the embeddings.
        weights = {
            name: tensor.to(torch.bfloat16).contiguous()
            for name, tensor in loaded.state_dict().items()
            if name != "lm_head.weight"
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        _tokenizer(gguf).save_pretrained(folder)


def _tokenizer(gguf: Path) -> Any:
    """The GGUF's tokenizer, with what the conversion loses put back.

    Raises:
        InputError: The converted tokenizer does not have SmolLM2's special tokens (another transformers version).
    """
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # SmolLM2 splits digits one by one before byte-level BPE (GGUF: tokenizer.ggml.pre = "smollm"); the conversion keeps
    # the byte-level step only, which cuts " ½" and other numerals differently.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.model_max_length = 8192
    tokenizer.clean_up_tokenization_spaces = False
    found = {token: tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL_IDS}
    if found != _SPECIAL_IDS or tokenizer.eos_token_id != _SPECIAL_IDS["<|im_end|>"] or not tokenizer.chat_template:
        raise InputError(
            f"model 'smollm2-135m-instruct': the converted tokenizer has special tokens {found} and end of turn "
            f"{tokenizer.eos_token_id}, expected {_SPECIAL_IDS} and 2, and a chat template",
            hint="Install the transformers version of KnowRL's lock file.",
        )
    return tokenizer
