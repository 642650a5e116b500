"""The torch trainer: one process, one device, full weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from knowrl_core.config.rl import RLConfig
from knowrl_core.errors import ArtifactError, StageError
from knowrl_core.rl.advantages import k1
from knowrl_core.rl.batches import MiniBatch
from knowrl_core.rl.checkpoint import Moments, TrainerState
from knowrl_core.rl.experience import Experience, Floats
from knowrl_core.rl.forward import Precision, token_outputs
from knowrl_core.rl.loss import clipped_loss
from knowrl_core.rl.packing import PackedPass
from knowrl_core.rl.schedule import learning_rate

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class TokenSums:
    """Sums over the response tokens of one optimizer step."""

    loss: float
    """Clipped policy loss; the one that is a mean already."""
    clipped: int
    """Tokens whose gradient the clip cut off."""
    entropy: float
    """Entropy, in nats."""
    kl: float | None
    """k1 estimates of KL(policy || reference); None without a reference."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one optimizer step saw, over its response tokens."""

    loss: float
    """Clipped policy loss, mean over tokens."""
    kl: float | None
    """Mean k1 estimate of KL(policy || reference) at this step's weights; None without a reference."""
    clip_fraction: float
    """Share of tokens whose gradient the clip cut off."""
    entropy: float
    """Mean token entropy, in nats."""
    grad_norm: float
    """Global L2 norm of the gradient before scaling."""
    learning_rate: float
    """Learning rate of the step."""


@torch.no_grad()
def settle_on_bf16(model: PreTrainedModel) -> None:
    """Round the weights that autocast uses in bf16 to bf16, in place, before the first step in bf16.

    The forward pass stays what it was, since autocast rounds them anyway. But of weights that were published in fp16,
    or dequantised from a few bits, one in eight to twelve lies exactly half-way between two bf16 numbers. The first
    step, however small, would flip all of these in its own direction: a jump thousands of times its learning rate.
    """
    # The head computes in fp32, and may share its weight with the embeddings.
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            module.weight.copy_(module.weight.bfloat16())


@torch.no_grad()
def all_logprobs(
    model: PreTrainedModel,
    passes: Sequence[PackedPass],
    n_tokens: int,
    *,
    precision: Precision,
    on_pass: Callable[[int], None] = lambda _: None,
) -> Floats:
    """Log-probabilities of all response tokens, [n_tokens], in the order of the flat token arrays.

    Args:
        model: Policy or reference.
        passes: Passes that together hold every token once.
        n_tokens: Number of response tokens.
        precision: Arithmetic.
        on_pass: Called with the number of passes done.
    """
    out = np.full(n_tokens, np.nan)
    for done, packed in enumerate(passes, start=1):
        out[packed.cell.numpy()] = token_outputs(model, packed, precision=precision).logprobs.double().cpu().numpy()
        on_pass(done)
    return out


class Trainer:
    """AdamW on a policy, with state that can be taken out and put back.

    Args:
        model: The policy in float32 and in eval mode (no dropout).
        rl: Learning rate, clip and so on.
        state: Where the run's steps and schedule stand.
        moments: AdamW's state to continue, empty for none.
    """

    def __init__(self, model: PreTrainedModel, rl: RLConfig, state: TrainerState, moments: Moments) -> None:
        self.model = model
        self.rl = rl
        self.state = state
        if rl.gradient_checkpointing:
            _checkpoint_layers(model)
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        # Biases and norm weights are not decayed: they have no scale to shrink that another weight would not restore.
        groups = [
            {"params": [p for p in self._parameters.values() if p.ndim > 1], "weight_decay": rl.weight_decay},
            {"params": [p for p in self._parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=rl.learning_rate, betas=rl.betas, eps=1e-8, fused=True
        )
        if moments:
            self._restore(moments)

    def begin(self) -> None:
        """Make the weights ready for steps in the configured precision; an update that makes none leaves it out.

        Goes before the log-probabilities that the steps' ratios are taken to.
        """
        if self.rl.precision == "bf16" and self.state.precision != "bf16":
            settle_on_bf16(self.model)
        self.state = self.state.model_copy(update={"precision": self.rl.precision})

    def step(self, mini: MiniBatch, data: Experience) -> StepOutcome:
        """One optimizer step on a mini-batch.

        Raises:
            StageError: Loss or gradient is not finite; the weights are as before the step.
        """
        sums = self.backward(mini, data)
        grad_norm = self._clip_gradient()
        rate = self._apply()
        return StepOutcome(
            loss=sums.loss,
            kl=None if sums.kl is None else sums.kl / mini.tokens,
            clip_fraction=sums.clipped / mini.tokens,
            entropy=sums.entropy / mini.tokens,
            grad_norm=grad_norm,
            learning_rate=rate,
        )

    def backward(self, mini: MiniBatch, data: Experience) -> TokenSums:
        """Forward and backward passes of a mini-batch; the gradients are left in the parameters.

        Raises:
            StageError: The loss is not finite.
        """
        loss = entropy = kl = 0.0
        clipped = 0
        for packed in mini.passes:
            cells = packed.cell.numpy()
            output = token_outputs(self.model, packed, precision=self.rl.precision)
            terms = clipped_loss(
                output.logprobs,
                self._tensor(data.policy[cells]),
                self._tensor(data.advantages[cells]),
                clip=self.rl.clip,
                step_tokens=mini.tokens,
            )
            part = float(terms.loss.detach())
            self._require_finite("loss", part)
            terms.loss.backward()  # type: ignore[no-untyped-call]
            loss += part
            clipped += int(terms.clipped)
            entropy += float(output.entropy.double().sum())
            if data.reference is not None:
                kl += float(k1(output.logprobs.detach().double().cpu().numpy(), data.reference[cells]).sum())
        return TokenSums(loss, clipped, entropy, kl if data.reference is not None else None)

    def moments(self) -> Moments:
        """AdamW's state by parameter name; empty before the first step of the run."""
        states = {name: self._optimizer.state.get(p) or {} for name, p in self._parameters.items()}
        steps = {name: int(state["step"]) if state else 0 for name, state in states.items()}
        most = max(steps.values(), default=0)
        if not most:
            return {}
        moments: Moments = {"step": torch.tensor(most)}
        moments |= {f"step/{name}": torch.tensor(step) for name, step in steps.items() if step < most}
        return moments | {
            f"{kind}/{name}": state[kind] for name, state in states.items() if state for kind in _MOMENTS
        }  # fmt: skip

    def _restore(self, moments: Moments) -> None:
        steps = {name: int(moments.get(f"step/{name}", moments.get("step", 0))) for name in self._parameters}
        # What is not there is fresh only if the state says so: another model may have the same names, and fewer.
        expected = {f"{kind}/{name}": p for name, p in self._parameters.items() if steps[name] for kind in _MOMENTS}
        known = {"step", *(f"step/{name}" for name in self._parameters), *expected}
        wrong = sorted((set(moments) - known) | ({"step", *expected} - set(moments)))
        wrong += [name for name, p in expected.items() if name in moments and moments[name].shape != p.shape]
        if wrong:
            raise ArtifactError(
                f"the optimizer state does not fit the model: {len(wrong)} entries differ in name or shape, for "
                f"example {wrong[0]!r}; expected two moments for each parameter, or step/<parameter> = 0",
                hint="Was it written for another model? Continue from a checkpoint of this one.",
            )
        for name, p in self._parameters.items():
            if steps[name]:
                self._optimizer.state[p] = {
                    "step": torch.tensor(float(steps[name]), device=p.device),
                    **{kind: moments[f"{kind}/{name}"].to(p) for kind in _MOMENTS},
                }

    def _clip_gradient(self) -> float:
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        value = float(norm)
        self._require_finite("gradient norm", value)
        if value > self.rl.max_grad_norm:  # below it the factor would be 1, and a pass over all gradients for nothing
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), self.rl.max_grad_norm, norm)
        return value

    def _apply(self) -> float:
        state = self.state.model_copy(
            update={"global_step": self.state.global_step + 1, "schedule_step": self.state.schedule_step + 1}
        )
        rate = learning_rate(state.schedule_step, peak=self.rl.learning_rate, warmup_steps=self.rl.warmup_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.state = state
        return rate

    def _tensor(self, values: Floats) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.model.device)

    def _require_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            self._optimizer.zero_grad(set_to_none=True)
            raise StageError(
                f"the {what} of optimizer step {self.state.global_step + 1} is {value}, expected a finite number; "
                "no checkpoint was written",
                hint="Lower rl.learning_rate, set rl.precision to fp32, or go back to an earlier checkpoint.",
            )


def _checkpoint_layers(model: PreTrainedModel) -> None:
    """Turn on gradient checkpointing without turning on dropout."""
    # Newer transformers deprecate the second name, older ones lack the first.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            # Layers recompute only while they are "training". This sets the flag of the layer itself and not of the
            # modules in it; dropout that a layer applies by itself goes with its rate.
            module.training = True
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
