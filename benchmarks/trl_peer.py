"""The peer: TRL's GRPO trainer, fed with finished rollouts. No generation, no rewards, the update alone.

The step is TRL's own, ``GRPOTrainer.training_step`` for each micro-batch and then clipping and AdamW as the training
loop of transformers has them. Where TRL can be run in more than one way, it is run in the quickest:

* The loss is ``dapo``, TRL's default. It divides by the response tokens of the whole optimizer step, as ours does:
  ``sum of token losses / (num_items_in_batch * accumulation steps / steps per generation)``.
* No gradient checkpointing (it is TRL's default, costs time and saves memory; ``checkpointing`` turns it on).
* Each micro-batch is padded to its own longest prompt and response, and prompts come sorted by length. TRL pads to the
  longest of all rollouts, and shuffles.
* The micro-batch size is the quickest of several.
"""

import math
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import psutil
import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from benchmarks.measure import measure
from benchmarks.rl_rollouts import RESPONSE_TOKENS, RolloutSet, StepReport
from knowrl_core.config.rl import RLConfig
from knowrl_core.models.quiet import quiet

SIZES: Final = (8, 16, 32)
"""Micro-batch sizes that are tried, as far as memory reaches; each doubling about doubles what a pass takes."""


@dataclass(frozen=True, slots=True)
class TrlOptions:
    """How TRL is run."""

    micro: int
    """Sequences of a micro-batch; 0 takes the quickest of :data:`SIZES`."""
    checkpointing: bool
    """Recompute activations in the backward pass, TRL's default."""
    sparse_head: bool
    """Score response positions only, as TRL does on GPUs; elsewhere its LM head runs on every position."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One micro-batch size, tried on a part of the rollouts."""

    micro: int
    tokens_per_second: float
    increase: int
    """Bytes that the passes took on top of model and optimizer state."""


class _FedTrainer(GRPOTrainer):
    """Takes micro-batches that are ready in place of generating and scoring them."""

    def _prepare_inputs(self, generation_batch: dict[str, Any]) -> dict[str, Any]:
        return generation_batch


class TrlSide:
    """One step of TRL over all rollouts.

    Args:
        model: The policy in float32.
        tokenizer: Its tokenizer.
        rl: Learning rate, clip and so on, and the precision.
        batch: The rollouts.
        options: How TRL is run.
    """

    def __init__(self, model: Any, tokenizer: Any, rl: RLConfig, batch: RolloutSet, options: TrlOptions) -> None:
        self._sequences = batch.sequences
        ends = np.cumsum([len(response) for _, response in self._sequences])
        self._n_tokens = int(ends[-1])
        self._old, self._reference, advantages = (
            np.split(values.astype(np.float32), ends[:-1]) for values in (batch.old, batch.reference, batch.advantages)
        )
        if any(part.min() != part.max() for part in advantages):
            raise ValueError("advantages differ within a verdict, expected one for each verdict as TRL has them")
        self._advantages = [float(part[0]) for part in advantages]
        self._folder = tempfile.TemporaryDirectory()
        self._trainer = self._build(model, tokenizer, rl, options)
        self._trainer.beta = rl.kl_coef
        if options.sparse_head:
            _score_responses_only()
        self._prepare()
        self.tried: list[Tried] = []
        self._micro = options.micro or self._quickest()
        self.label = f"TRL, {self._micro} sequences a pass"

    def tuning(self) -> list[Tried]:
        """The sizes that were tried."""
        return self.tried

    def warm_up(self) -> None:
        """One micro-batch, whose gradient is thrown away."""
        self._passes(range(min(self._micro, len(self._sequences))), self._micro)
        self._model.zero_grad()

    def step(self) -> StepReport:
        """One optimizer step over all verdicts, as ``Trainer._run_epoch`` makes it."""
        trainer = self._trainer
        loss = self._passes(range(len(self._sequences)), self._micro)
        norm = trainer._get_grad_norm(self._model, grad_norm=trainer._clip_grad_norm(self._model))
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        self._model.zero_grad()
        return StepReport(loss, float(norm))

    def _build(self, model: Any, tokenizer: Any, rl: RLConfig, options: TrlOptions) -> _FedTrainer:
        with quiet():
            arguments = GRPOConfig(
                output_dir=self._folder.name,
                per_device_train_batch_size=options.micro or min(SIZES),
                gradient_accumulation_steps=1,
                num_generations=2,  # of no effect here, but it must divide the batch
                max_completion_length=RESPONSE_TOKENS[1],
                max_steps=1_000_000,
                learning_rate=rl.learning_rate,
                lr_scheduler_type="constant",
                optim="adamw_torch_fused",
                adam_beta1=rl.betas[0],
                adam_beta2=rl.betas[1],
                weight_decay=rl.weight_decay,
                max_grad_norm=rl.max_grad_norm,
                loss_type="dapo",
                epsilon=rl.clip,
                beta=0.0,  # no reference model is loaded; the coefficient is set below
                use_bias_correction_kl=False,
                bf16=rl.precision == "bf16",
                gradient_checkpointing=options.checkpointing,
                disable_dropout=True,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            return _FedTrainer(
                model=model,
                reward_funcs=lambda completions, **_: [0.0] * len(completions),
                args=arguments,
                train_dataset=Dataset.from_dict({"prompt": [" "] * 64}),
                processing_class=tokenizer,
            )

    def _prepare(self) -> None:
        """What ``Trainer.train`` does before its first step, and one step of nothing, so that AdamW's state exists."""
        trainer = self._trainer
        trainer.create_optimizer()
        self._model, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.create_scheduler(num_training_steps=trainer.args.max_steps)
        if trainer.args.gradient_checkpointing:
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        for p in self._model.parameters():
            p.grad = torch.zeros_like(p)
        trainer.optimizer.step()
        self._model.zero_grad()

    def _passes(self, chosen: range, micro: int) -> float:
        """Forward and backward passes of some sequences; returns their part of the loss."""
        trainer = self._trainer
        # All of them make one optimizer step.
        accumulated = math.ceil(len(self._sequences) / micro)
        trainer.current_gradient_accumulation_steps = accumulated
        trainer.args.gradient_accumulation_steps = trainer.args.steps_per_generation = accumulated
        total = 0.0
        for i in range(0, len(chosen), micro):
            inputs = self._inputs(chosen[i : i + micro])
            total += float(trainer.training_step(self._model, inputs, inputs["num_items_in_batch"]))
        return total

    def _inputs(self, members: range) -> dict[str, Tensor]:
        prompts = [self._sequences[i][0] for i in members]
        responses = [self._sequences[i][1] for i in members]
        before, after = max(map(len, prompts)), max(map(len, responses))
        pad = self._trainer._tokenizer.pad_token_id

        def per_token(values: list[np.ndarray[Any, Any]]) -> Tensor:
            return torch.tensor([[*values[i].tolist(), *[0.0] * (after - len(values[i]))] for i in members])

        inputs = {
            "prompt_ids": torch.tensor([[pad] * (before - len(ids)) + list(ids) for ids in prompts]),
            "prompt_mask": torch.tensor([[0] * (before - len(ids)) + [1] * len(ids) for ids in prompts]),
            "completion_ids": torch.tensor([list(ids) + [pad] * (after - len(ids)) for ids in responses]),
            "completion_mask": torch.tensor([[1] * len(ids) + [0] * (after - len(ids)) for ids in responses]),
            "advantages": torch.tensor([self._advantages[i] for i in members]),
            "old_per_token_logps": per_token(self._old),
            "num_items_in_batch": torch.tensor(self._n_tokens),
        }
        if self._trainer.beta:
            inputs["ref_per_token_logps"] = per_token(self._reference)
        return inputs

    def _quickest(self) -> int:
        """Try each size on sequences of medium length."""
        n = len(self._sequences)
        sizes = [size for size in SIZES if size <= n] or [n]
        start = (n - sizes[-1]) // 2
        part = range(start, start + sizes[-1])
        tokens = sum(len(prompt) + len(response) for prompt, response in (self._sequences[i] for i in part))
        self._passes(part[: sizes[0]], sizes[0])  # warm-up
        for micro in sizes:
            if self.tried and 2 * self.tried[-1].increase > psutil.virtual_memory().available:
                break  # the sides of a run are in memory together
            self._model.zero_grad()
            done = measure(partial(self._try, part, micro))
            self.tried.append(Tried(micro, tokens / done.seconds, done.peak - done.before))
        self._model.zero_grad()
        return max(self.tried, key=lambda tried: tried.tokens_per_second).micro

    def _try(self, part: range, micro: int) -> StepReport:
        return StepReport(self._passes(part, micro), math.nan)


def _score_responses_only() -> None:
    """Make TRL's fused LM head pick the response positions on the CPU, too, as it does on devices with Triton."""
    import trl.trainer.utils  # noqa: PLC0415

    trl.trainer.utils._use_triton = lambda _: True
