"""What a comparison of updates runs: which side, on which model, with which settings; and how each is built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.measure import Side
from benchmarks.rl_packed import PackedSide
from benchmarks.rl_plain import PlainSide
from benchmarks.rl_rollouts import Kind, RolloutSet, build_rollouts
from knowrl_core.config.rl import RLConfig
from knowrl_core.models.load import load_policy, load_tokenizer, setup_torch

SideName = Literal["packed", "plain", "trl"]


@dataclass(frozen=True, slots=True)
class Settings:
    """All that is the same for the sides of a run; crosses to their processes."""

    model: Path
    """Folder of the policy."""
    threads: int
    """Threads of each side; they run one after the other."""
    micro_token_budget: int
    """Tokens of one of our packed passes."""
    plain_micro: int
    """Sequences of one of our unpacked passes."""
    trl_micro: int
    """Sequences of one of TRL's passes; 0 tries several."""
    kl_coef: float
    """Weight of a KL penalty in the loss (estimator k3, as TRL has it)."""
    trl_checkpointing: bool
    """Let TRL recompute activations."""
    trl_sparse_head: bool
    """Let TRL score response positions only."""


def make_rollouts(settings: Settings, kind: Kind, prompts: int, k: int, seed: int) -> RolloutSet:
    """Load the policy and make the rollouts."""
    setup_torch(settings.threads)
    model = load_policy(settings.model, device="cpu", dtype=torch.float32)
    return build_rollouts(model, load_tokenizer(settings.model), kind, prompts=prompts, k=k, seed=seed)


def build_side(name: SideName, settings: Settings, batch: RolloutSet, precision: Literal["fp32", "bf16"]) -> Side:
    """Load the policy and make one side. The learning rate is so small that no step changes the next one's loss."""
    verdicts = len(batch.sequences)
    rl = RLConfig(
        learning_rate=1e-9,
        kl_coef=settings.kl_coef,
        kl_in="loss",
        kl_estimator="k3",
        rollout_batch_size=len(batch.rollouts),
        train_batch_size=verdicts,
        micro_token_budget=settings.micro_token_budget,
        precision=precision,
    )
    if name == "trl":
        torch.set_num_threads(settings.threads)
    else:
        setup_torch(settings.threads)  # deterministic algorithms, too, as in a run
    model = load_policy(settings.model, device="cpu", dtype=torch.float32)
    if name == "packed":
        return PackedSide(model, rl, batch)
    if name == "plain":
        return PlainSide(model, rl, batch, micro=settings.plain_micro)
    from benchmarks.trl_peer import TrlOptions, TrlSide  # noqa: PLC0415 - the other sides must not load TRL

    options = TrlOptions(settings.trl_micro, settings.trl_checkpointing, settings.trl_sparse_head)
    return TrlSide(model, load_tokenizer(settings.model), rl, batch, options)
