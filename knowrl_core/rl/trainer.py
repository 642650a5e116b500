"""The torch trainer: one process, one device."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from knowrl_core.config.rl import RLConfig
from knowrl_core.errors import StageError
from knowrl_core.models.load import pick_dtype
from knowrl_core.rl.batches import MiniBatch
from knowrl_core.rl.checkpoint import Moments, TrainerState
from knowrl_core.rl.experience import Experience, Floats
from knowrl_core.rl.forward import PackedModel, Precision
from knowrl_core.rl.head import TokenOutput
from knowrl_core.rl.loss import PassLoss, TokenBatch, policy_gradient_loss, supervised_loss
from knowrl_core.rl.optimizer import adamw, read_moments, write_moments
from knowrl_core.rl.schedule import learning_rate
from knowrl_core.rl.settle import checkpoint_layers, settle_on_bf16
from knowrl_core.rl.tree import PackedPass

Objective = Literal["policy_gradient", "supervised"]


class NonFiniteError(StageError):
    """A loss or gradient is not finite; the weights are as before the step."""


@dataclass(slots=True)
class TokenSums:
    """Sums over the passes of one optimizer step."""

    loss: float = 0.0
    """What is minimised; a mean already."""
    policy_loss: float = 0.0
    """Clipped policy loss; a mean already."""
    clipped: float = 0.0
    """Tokens whose gradient the clip cut off."""
    entropy: float = 0.0
    """Entropy, in nats."""
    k1: float = 0.0
    """k1 estimates of KL(policy || reference)."""
    k3: float = 0.0
    """The same by k3."""

    def add(self, part: PassLoss) -> None:
        """Add a pass."""
        values = torch.stack(
            [x.double() for x in (part.loss.detach(), part.policy, part.clipped, part.entropy, *part.kl)]
        ).tolist()
        for name, value in zip(self.__slots__, values, strict=True):
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one optimizer step saw, over its response tokens."""

    loss: float
    """What was minimised."""
    policy_loss: float
    """Clipped policy loss alone."""
    kl: float | None
    """Mean k1 estimate of KL(policy || reference) at this step's weights; None without a reference."""
    kl_k3: float | None
    """The same by k3."""
    clip_fraction: float
    """Share of tokens whose gradient the clip cut off."""
    entropy: float
    """Mean token entropy, in nats."""
    grad_norm: float
    """Global L2 norm of the gradient before scaling."""
    learning_rate: float
    """Learning rate of the step."""


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
    run = PackedModel(model, precision)
    out = np.full(n_tokens, np.nan)
    for done, packed in enumerate(passes, start=1):
        out[packed.cell.numpy()] = run(packed).logprobs.double().cpu().numpy()
        on_pass(done)
    return out


class Trainer:
    """AdamW on a policy, with state that can be taken out and put back.

    Args:
        model: The policy in float32 and in eval mode (no dropout).
        rl: Learning rate, clip and so on; ``precision`` is resolved (see :func:`resolved_precision`).
        state: Where the run's steps and schedule stand.
        moments: AdamW's state to continue, empty for none.
        objective: What is optimised.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rl: RLConfig,
        state: TrainerState,
        moments: Moments,
        *,
        objective: Objective = "policy_gradient",
    ) -> None:
        self.model = model
        self.rl = rl
        self.state = state
        self.objective = objective
        self.precision = resolved_precision(rl, model.device)
        if rl.gradient_checkpointing:
            checkpoint_layers(model)
        self._run = PackedModel(model, self.precision)
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._optimizer = adamw(self._parameters, rl)
        if moments:
            write_moments(self._optimizer, self._parameters, moments)

    def begin(self) -> None:
        """Make the weights ready for steps in the configured precision; an update that makes none leaves it out.

        Goes before the log-probabilities that the steps' ratios are taken to.
        """
        if self.precision == "bf16" and self.state.precision != "bf16":
            settle_on_bf16(self.model)
        self.state = self.state.model_copy(update={"precision": self.precision})

    def step(self, mini: MiniBatch, data: Experience) -> StepOutcome:
        """One optimizer step on a mini-batch.

        Raises:
            NonFiniteError: Loss or gradient is not finite; the weights are as before the step.
        """
        sums = self.backward(mini, data)
        grad_norm = self._clip_gradient()
        return outcome(sums, mini, data, grad_norm=grad_norm, rate=self._apply())

    def backward(self, mini: MiniBatch, data: Experience) -> TokenSums:
        """Forward and backward passes of a mini-batch; the gradients are left in the parameters.

        Raises:
            NonFiniteError: The loss is not finite.
        """
        sums = TokenSums()
        weights = data.weights(mini.tasks, self.rl.loss_mean)
        for packed in mini.passes:
            part = pass_loss(self._run, packed, data, weights, rl=self.rl, objective=self.objective)
            sums.add(part)
            self._require_finite("loss", sums.loss)
            part.loss.backward()  # type: ignore[no-untyped-call]
        return sums

    def moments(self) -> Moments:
        """AdamW's state by parameter name; empty before the first step of the run."""
        return read_moments(self._optimizer, self._parameters)

    def trained(self) -> dict[str, Tensor]:
        """The weights that are trained, by name."""
        return {name: p.detach() for name, p in self._parameters.items()}

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], moments: Moments, state: TrainerState) -> None:
        """Put back what an interrupted update had come to; goes after :meth:`begin`."""
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
        write_moments(self._optimizer, self._parameters, moments)
        self.state = state

    def _clip_gradient(self) -> float:
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        value = float(norm)
        self._require_finite("gradient norm", value)
        if value > self.rl.max_grad_norm:  # below it the factor would be 1, and a pass over all gradients for nothing
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), self.rl.max_grad_norm, norm)
        return value

    def _apply(self) -> float:
        self.state = next_state(self.state)
        rate = learning_rate(self.state.schedule_step, self.rl)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return rate

    def _require_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            self._optimizer.zero_grad(set_to_none=True)
            raise non_finite(what, value, self.state)


def resolved_precision(rl: RLConfig, device: torch.device) -> Precision:
    """The arithmetic that ``rl.precision`` means here: ``auto`` is bf16 where the hardware multiplies it natively."""
    return "bf16" if pick_dtype(rl.precision, device) == torch.bfloat16 else "fp32"


def next_state(state: TrainerState) -> TrainerState:
    """The state after one more optimizer step."""
    return state.model_copy(update={"global_step": state.global_step + 1, "schedule_step": state.schedule_step + 1})


def pass_loss(
    run: Callable[[PackedPass], TokenOutput],
    packed: PackedPass,
    data: Experience,
    weights: Floats,
    *,
    rl: RLConfig,
    objective: Objective,
) -> PassLoss:
    """Forward pass and loss of a pass.

    Args:
        run: The policy.
        packed: The pass.
        data: What is known of all tokens.
        weights: [N] share of each token in the mean of the step.
        rl: The loss.
        objective: What is optimised.
    """
    output = run(packed)
    cells = packed.cell.cpu().numpy()

    def column(values: Floats) -> Tensor:
        return torch.from_numpy(values[cells]).to(output.logprobs)

    if objective == "supervised":
        nothing = torch.zeros_like(output.logprobs)
        return supervised_loss(output, TokenBatch(nothing, nothing, column(weights)))
    batch = TokenBatch(
        old=column(data.old),
        advantages=column(data.advantages),
        weights=column(weights),
        importance=None if data.importance is None else column(data.importance),
        reference=None if data.reference is None else column(data.reference),
    )
    return policy_gradient_loss(output, batch, rl)


def outcome(sums: TokenSums, mini: MiniBatch, data: Experience, *, grad_norm: float, rate: float) -> StepOutcome:
    """What a step saw, from its sums."""
    known = data.reference is not None
    return StepOutcome(
        loss=sums.loss,
        policy_loss=sums.policy_loss,
        kl=sums.k1 / mini.tokens if known else None,
        kl_k3=sums.k3 / mini.tokens if known else None,
        clip_fraction=sums.clipped / mini.tokens,
        entropy=sums.entropy / mini.tokens,
        grad_norm=grad_norm,
        learning_rate=rate,
    )


def non_finite(what: str, value: float, state: TrainerState) -> NonFiniteError:
    """The error of a step that has no finite loss or gradient."""
    return NonFiniteError(
        f"the {what} of optimizer step {state.global_step + 1} is {value}, expected a finite number; "
        "no checkpoint was written",
        hint="Lower rl.learning_rate, set rl.precision to fp32, or go back to an earlier checkpoint.",
    )
