"""Whether a server serves the weights of a checkpoint."""

import gc
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from knowrl_core.engines.base import Turn
from knowrl_core.engines.chat import render
from knowrl_core.engines.vllm.api import ServerGoneError, VllmApi
from knowrl_core.models.load import load_policy

_TEXTS: Final = ("Name a colour of the rainbow.", "What is the sum of 17 and 25? Show how you get there.")
TOLERANCE: Final = {"fp32": 3e-4, "bf16": 5e-2}
"""Largest mean absolute difference of a prompt token's log-probability, in nats."""


class Fingerprint:
    """Log-probabilities of a few fixed prompts under a checkpoint, computed on the CPU in this process.

    Args:
        folder: The checkpoint.
        tokenizer: Its tokenizer.
        dtype: ``fp32`` or ``bf16``, as the server computes.
    """

    def __init__(self, folder: Path, tokenizer: Any, dtype: str) -> None:
        self.prompts = [render(tokenizer, (Turn(role="user", content=text),)) for text in _TEXTS]
        model = load_policy(folder, device="cpu", dtype=torch.float32 if dtype == "fp32" else torch.bfloat16)
        self.expected = [_forward(model, prompt) for prompt in self.prompts]
        self.tolerance = TOLERANCE[dtype]
        del model
        gc.collect()

    def ask(self, api: VllmApi) -> list[list[float]]:
        """What a server gives for the prompts.

        Raises:
            ServerGoneError: It gives no log-probabilities.
        """
        return [_served(api, prompt) for prompt in self.prompts]

    def difference(self, found: Sequence[Sequence[float]]) -> float:
        """Mean absolute difference to the checkpoint, over all prompts' tokens."""
        differences = [
            abs(a - b)
            for mine, theirs in zip(found, self.expected, strict=True)
            for a, b in zip(mine, theirs, strict=True)
        ]
        mean = math.fsum(differences) / len(differences)
        return mean if math.isfinite(mean) else math.inf


@torch.inference_mode()
def _forward(model: Any, prompt: Sequence[int]) -> list[float]:
    logits = model(input_ids=torch.tensor([list(prompt)]), use_cache=False).logits[0, :-1].float()
    chosen = logits.gather(-1, torch.tensor(prompt[1:])[:, None])[:, 0]
    values: list[float] = (chosen - torch.logsumexp(logits, dim=-1)).tolist()
    return values


def _served(api: VllmApi, prompt: Sequence[int]) -> list[float]:
    answer = api.complete(
        {
            "model": api.policy,
            "prompt": list(prompt),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
            "add_special_tokens": False,
        }
    )
    try:
        given = answer["choices"][0]["prompt_logprobs"][1:]
        return [float(row[str(token)]["logprob"]) for row, token in zip(given, prompt[1:], strict=True)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ServerGoneError(f"the answer lacks prompt_logprobs: {error!r}") from error
