"""The two gates: what is trained on, and what may enter the pool. Each refusal has a reason."""

from collections.abc import Sequence
from typing import Final

from knowrl_core.config.learning import ConsensusConfig
from knowrl_core.consensus.rewards import Decision
from knowrl_core.labels import LABELS, Label
from knowrl_core.rng import derive_seed

TIE: Final = "tie"
ANCHORS_ONLY: Final = "anchors_only"
BELOW_TRAIN_MIN: Final = "share_below_train_min"
ABOVE_TRAIN_MAX: Final = "share_above_train_max"
CLASS_BALANCE: Final = "class_balance"
DISAGREES: Final = "disagrees_with_intended"
BELOW_POOL_MIN: Final = "share_below_pool_min"
IN_POOL: Final = "already_in_pool"
POOL_FULL: Final = "pool_full"
ANCHOR: Final = "anchor"


def train_refusal(decision: Decision, intended: str, config: ConsensusConfig) -> str | None:
    """Why a candidate is not trained on, or None. Both bounds are inclusive."""
    if config.anchors.share == 1:
        return ANCHORS_ONLY
    if decision.label is None:
        return TIE
    if decision.share < config.train_min_share:
        return BELOW_TRAIN_MIN
    if decision.share > config.train_max_share:
        return ABOVE_TRAIN_MAX
    return DISAGREES if config.train_requires_agreement and decision.label != intended else None


def pool_refusal(decision: Decision, intended: str, config: ConsensusConfig) -> str | None:
    """Why a candidate may not enter the pool, or None. The bound is inclusive."""
    if decision.label is None:
        return TIE
    if decision.share < config.pool_min_share:
        return BELOW_POOL_MIN
    return DISAGREES if config.pool_requires_agreement and decision.label != intended else None


def trimmed_for_balance(tasks: Sequence[tuple[str, Label]]) -> set[str]:
    """Ids to leave out so that both labels are left equally often.

    Which ones is decided by a hash of their ids: the same on every machine, and unlike an order by share it prefers
    neither sure nor unsure tasks. If one label is missing, all are left out: training on one label alone is the
    shortest way to a model that always says it.

    Args:
        tasks: Id and consensus label of the tasks that passed the gate.
    """
    by_label = {label: [task_id for task_id, own in tasks if own == label] for label in LABELS}
    size = min(map(len, by_label.values()))
    return {
        task_id
        for ids in by_label.values()
        for task_id in sorted(ids, key=lambda task_id: (derive_seed(CLASS_BALANCE, task_id), task_id))[size:]
    }
