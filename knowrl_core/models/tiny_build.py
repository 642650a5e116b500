"""Builds the tiny random model.

It knows nothing. Its tokens are words of :data:`~knowrl_core.models.words.WORDS`, so that its samples consist of words
and end after some ten of them, and its weights are large enough for different prompts to give clearly different
distributions.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from knowrl_core.models.quiet import quiet
from knowrl_core.models.words import WORDS
from knowrl_core.rng import stream

_TEXT_END, _START, _END = _SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_VOCAB = 1024
_HIDDEN = 64
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LOGIT_STD = {"word": 3.0, "end": 8.0, "other": 0.3}
"""Spread of a token's logit over contexts. The mean of exp(logit) grows with exp(std^2 / 2): words carry nearly all the
mass, fragments of words hardly any, and the end of a turn dominates in a few contexts."""


def write(folder: Path, architecture: Literal["llama", "qwen2"]) -> None:
    """Write the model, its tokenizer and its chat template into an empty folder."""
    tokenizer = _tokenizer()
    with quiet():
        _model(tokenizer, architecture).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _tokenizer() -> Any:
    """Byte-level BPE with ChatML, trained on the word list."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in _SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([f" {word}" for word in WORDS], trainer)
    roles = {"bos_token": _START, "eos_token": _END, "pad_token": _END, "unk_token": _TEXT_END}
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **roles
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def _model(tokenizer: Any, architecture: Literal["llama", "qwen2"]) -> Any:
    """Random weights from NumPy's Philox: PyTorch's normal deviates differ with the vector width of the processor."""
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model: Any
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, head_dim=_HIDDEN // 4, tie_word_embeddings=True))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=False))
    rows = _embedding_scale(tokenizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and not name.endswith("bias"):
                parameter.fill_(1.0)  # norms
                continue
            noise = stream("tiny-random", architecture, name).standard_normal(tuple(parameter.shape)).astype(np.float32)
            # Hidden states have unit mean square before the head, so a row of norm s gives logits of spread s.
            scale = rows[:, None] if "embed" in name or "lm_head" in name else np.float32(_gain(name) / _HIDDEN**0.5)
            parameter.copy_(torch.from_numpy(noise * scale))
    return model


def _gain(name: str) -> float:
    """How much larger than usual the weights of a layer are."""
    if "q_proj" in name:
        return 3.0  # sharp attention: over a long prompt, an even average would be the same for every prompt
    if "o_proj" in name or "down_proj" in name:
        return 4.0  # drowns the token's own embedding, which a tied head would otherwise repeat for ever
    return 1.0


def _embedding_scale(tokenizer: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Standard deviation of the entries of each token's embedding row, shape [vocabulary]."""
    scale = np.full(len(tokenizer), _LOGIT_STD["other"], dtype=np.float32)
    for word in WORDS:
        ids = tokenizer(f" {word}", add_special_tokens=False).input_ids
        if len(ids) == 1:
            scale[ids] = _LOGIT_STD["word"]
    scale[tokenizer.eos_token_id] = _LOGIT_STD["end"]
    return scale / np.float32(_HIDDEN**0.5)
