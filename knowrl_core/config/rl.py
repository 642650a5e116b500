"""Config of the update: algorithm, loss, batches, optimizer, trainer, warm-up."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from knowrl_core.config.base import NonNegativeInt, PositiveInt, Section, Share

Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
"""Share of a running mean that a step keeps; with 1 it would never move."""


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) through peft; only they are trained.

    A checkpoint holds the merged weights, and the adapters beside them to go on from.
    """

    rank: NonNegativeInt = 0
    """Rank of the adapters; 0 trains all weights."""

    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    """The adapters' product is scaled by ``alpha / rank``."""

    targets: tuple[str, ...] = ()
    """Names of the linear layers that get one, such as ``q_proj``; empty takes all but the LM head."""


class DeepSpeedConfig(Section):
    """Trainer ``deepspeed``: the update in processes of its own, started by DeepSpeed's launcher."""

    stage: Annotated[int, Field(ge=0, le=3)] = 2
    """ZeRO stage: what is split over the processes. 1: optimizer state, 2: gradients as well, 3: weights as well."""

    processes: PositiveInt = 1
    """Processes on each node, one a device."""

    hostfile: str | None = None
    """DeepSpeed hostfile (``host slots=8`` a line) for several nodes; they must see the artifact root at the same
    path."""

    offload_optimizer: bool = False
    """Keep optimizer state in CPU memory (stages 1 to 3)."""

    offload_parameters: bool = False
    """Keep weights in CPU memory between layers (stage 3)."""

    config: str | None = None
    """DeepSpeed JSON file with further settings, merged over ours; see ``configs/deepspeed``."""

    @model_validator(mode="after")
    def _offload_has_a_stage(self) -> Self:
        if self.offload_optimizer and self.stage == 0:
            raise ValueError("offload_optimizer is true at stage 0, expected stage 1, 2 or 3: nothing is split at 0")
        if self.offload_parameters and self.stage != 3:
            raise ValueError(f"offload_parameters is true at stage {self.stage}, expected stage 3")
        return self


class RLConfig(Section):
    """Stage ``update``: policy-gradient training on the verdicts."""

    algorithm: Literal["reinforce++", "reinforce++-baseline", "grpo", "rloo"] = "reinforce++"
    """Advantage estimator; none needs a critic. ``reinforce++`` (arXiv 2501.03262): whitened over the batch's tokens.
    ``reinforce++-baseline``: the mean of the task's rewards subtracted first. ``grpo`` (arXiv 2402.03300): standardised
    within the task. ``rloo`` (arXiv 2402.14740): the mean of the task's other rewards subtracted."""

    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-6
    """Peak learning rate of AdamW."""

    warmup_steps: NonNegativeInt = 0
    """Optimizer steps of linear learning-rate warm-up, counted from the start of the run over all iterations."""

    decay_steps: NonNegativeInt = 0
    """Optimizer steps after the warm-up over which the learning rate falls to ``min_learning_rate``, over all
    iterations; 0 keeps it at its peak."""

    min_learning_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Learning rate at the end of the decay."""

    schedule: Literal["linear", "cosine"] = "linear"
    """Form of the decay."""

    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Decoupled weight decay of AdamW, per step and unit of learning rate."""

    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """Decay of AdamW's first and second moments."""

    kl_coef: Annotated[float, Field(ge=0.0, le=10.0)] = 1e-4
    """Weight of the token-wise KL penalty to the reference (the frozen initial model); 0 turns it off."""

    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimator of the KL penalty (Schulman 2020): k1 unbiased, k2 = k1^2 / 2, k3 unbiased and never negative."""

    kl_in: Literal["reward", "loss"] = "reward"
    """Where the penalty goes: into the rewards of the tokens (REINFORCE++), or into the loss (GRPO)."""

    clip: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """PPO clip: the probability ratio is held in [1 - clip, 1 + clip_high]."""

    clip_high: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    """Upper half of the clip, if it differs from the lower (DAPO's clip-higher); null means the same."""

    loss_mean: Literal["token", "sequence"] = "token"
    """``token``: mean over all response tokens of the step. ``sequence``: mean over verdicts of each one's token mean,
    as in GRPO; long verdicts then weigh no more than short ones."""

    entropy_coef: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight of the entropy bonus: the mean token entropy (nats) is subtracted from the loss, times this."""

    old_logprobs: Literal["recomputed", "engine"] = "recomputed"
    """The denominator of the ratio: log-probabilities that the trainer computes before the first step, or those that
    the engine gave when it sampled. The difference of the two is measured either way."""

    importance_cap: Annotated[float, Field(gt=0.0, le=1000.0)] | None = None
    """Truncated importance sampling: each token's policy loss is multiplied by min(trainer / engine probability, cap).
    That corrects for an engine that computes otherwise than the trainer. Null: no correction. Needs ``old_logprobs:
    recomputed``."""

    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Gradient norm above which the gradient is scaled down."""

    epochs: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes over the iteration's rollouts."""

    rollout_batch_size: PositiveInt = 16
    """Tasks whose tokens are whitened together."""

    balance_batches: bool = False
    """Spread both labels evenly over the rollout batches, so that none is whitened over one label alone."""

    balance_advantages: bool = False
    """Give both labels the same total weight in a rollout batch: the advantages of a label's tokens are centred on
    their own mean and scaled so that the rarer label counts as much as the other. A lean of the whole batch to one
    label then moves nothing."""

    train_batch_size: PositiveInt = 16
    """Verdicts (samples) per optimizer step; all verdicts of a task stay together, so it is rounded up to whole
    tasks."""

    micro_token_budget: Annotated[int, Field(ge=64, le=1_048_576)] = 2048
    """Tokens of one packed forward and backward pass. Bounds memory; does not change the result. A task whose prompt
    and verdicts are longer gets a pass of its own."""

    max_prompt_tokens: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Longest prompt trained on, in tokens; tasks above it are left out of the update and counted."""

    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of forward and backward (bf16 through autocast; weights and optimizer stay fp32). ``auto``: bf16 where
    the hardware multiplies it natively, else fp32; emulated, bf16 is many times slower."""

    save_steps: NonNegativeInt | None = None
    """Optimizer steps after which an update under way is saved (weights and moments), so that an update that dies does
    not begin anew. Null: whenever ten minutes of work would be lost; 0: never. Trainer ``torch`` alone."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    lora: LoraConfig = LoraConfig()
    """Train low-rank adapters in place of all weights."""

    trainer: Literal["torch", "deepspeed"] = "torch"
    """``torch``: in the model worker, one device. ``deepspeed``: processes of its own, on one or several nodes."""

    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    """Settings of the second."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.importance_cap is not None and self.old_logprobs == "engine":
            raise ValueError(
                "importance_cap is set and old_logprobs is 'engine', expected 'recomputed': the ratio to the engine's "
                "log-probabilities holds the correction already"
            )
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate is {self.min_learning_rate}, expected at most learning_rate ({self.learning_rate})"
            )
        if self.lora.rank and self.trainer == "deepspeed":
            raise ValueError("lora.rank is above 0 and trainer is 'deepspeed', expected trainer 'torch' for adapters")
        return self


class WarmupConfig(Section):
    """Supervised warm-up on the seeds, for small models that start at chance.

    With ``epochs`` above 0, iteration 1 is the warm-up: it has the stages ``update`` and ``evaluate`` alone, and so a
    row of its own in every table. The loop starts with iteration 2.
    """

    epochs: Annotated[int, Field(ge=0, le=1000)] = 0
    """Passes over the seeds; 0 turns the warm-up off."""

    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-5
    """Learning rate of AdamW, constant."""

    batch_size: PositiveInt = 16
    """Labelled verdicts (a seed in one view) per optimizer step."""

    views: tuple[str, ...] = ()
    """Views in which each seed is asked; empty means those of ``verdict.views``."""

    share: Share = 1.0
    """Share of the seeds used, the same of each label."""
