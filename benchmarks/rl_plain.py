"""The update without any sharing: one sequence a verdict, in padded batches. What packing is compared to."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.rl_rollouts import RolloutSet, StepReport
from knowrl_core.config.rl import RLConfig

Precision = Literal["fp32", "bf16"]
Sequences = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]


class PlainSide:
    """AdamW on the clipped loss of padded micro-batches; the head runs on response positions only.

    Args:
        model: The policy in float32.
        rl: Learning rate, clip and so on.
        batch: The rollouts.
        micro: Sequences of a micro-batch.
    """

    def __init__(self, model: Any, rl: RLConfig, batch: RolloutSet, *, micro: int) -> None:
        self.model = model
        self.rl = rl
        self._precision: Precision = "bf16" if rl.precision == "bf16" else "fp32"
        self.label = f"unpacked, {micro} sequences a pass"
        self._sequences = batch.sequences
        self._micro = micro
        self._old, self._advantages, self._reference = (
            torch.from_numpy(values.astype(np.float32)) for values in (batch.old, batch.advantages, batch.reference)
        )
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=rl.learning_rate, betas=rl.betas, weight_decay=0.0, fused=True
        )
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        self._optimizer.step()  # so that its state exists
        self._optimizer.zero_grad()

    def warm_up(self) -> None:
        """One micro-batch, whose gradient is thrown away."""
        self._backward(range(min(self._micro, len(self._sequences))))
        self._optimizer.zero_grad()

    def step(self) -> StepReport:
        """One optimizer step over all verdicts."""
        loss = self._backward(range(len(self._sequences)))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.rl.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return StepReport(loss, float(norm))

    def _backward(self, chosen: range) -> float:
        total = 0.0
        starts = np.cumsum([0, *(len(response) for _, response in self._sequences)])
        n_tokens = int(starts[-1])
        for members in _slices(chosen, self._micro):
            cells = slice(int(starts[members.start]), int(starts[members.stop]))
            part = self._sequences[members.start : members.stop]
            logprobs, _ = _token_outputs(self.model, part, precision=self._precision)
            ratio = torch.exp(logprobs - self._old[cells])
            held = torch.clamp(ratio, 1.0 - self.rl.clip, 1.0 + self.rl.clip)
            advantages = self._advantages[cells]
            loss = -torch.minimum(ratio * advantages, held * advantages).sum() / n_tokens
            if self.rl.kl_coef:
                gap = self._reference[cells] - logprobs
                loss = loss + self.rl.kl_coef * (torch.exp(gap) - gap - 1).sum() / n_tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total


def _slices(chosen: range, micro: int) -> Iterator[range]:
    return (chosen[i : i + micro] for i in range(0, len(chosen), micro))


def _token_outputs(model: Any, sequences: Sequences, *, precision: Precision) -> tuple[Tensor, Tensor]:
    """Log-probability (with gradient) and entropy (without) of each response token, sequence after sequence."""
    width = max(len(prompt) + len(response) for prompt, response in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    rows: list[int] = []
    places: list[int] = []
    for i, (prompt, response) in enumerate(sequences):
        length = len(prompt) + len(response)
        ids[i, :length] = torch.tensor(prompt + response)
        mask[i, :length] = 1
        rows += [i] * len(response)
        places += range(len(prompt), length)
    row, place = torch.tensor(rows), torch.tensor(places)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    # In float32 at any precision, as in the packed form.
    logits = model.get_output_embeddings()(hidden[row, place - 1].float())
    normaliser = torch.logsumexp(logits, dim=-1)
    with torch.no_grad():
        entropy = normaliser - torch.linalg.vecdot(torch.exp(logits - normaliser[:, None]), logits)
    return logits.gather(1, ids[row, place][:, None])[:, 0] - normaliser, entropy
