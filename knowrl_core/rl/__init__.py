"""The policy update: REINFORCE++ on verdicts, with shared-prefix packing.

:func:`run_update` takes an :class:`UpdateJob` and leaves a checkpoint; the other names are the pieces that it is made
of, each usable by itself.
"""

from knowrl_core.rl.advantages import ALGORITHMS, RolloutBatch, k1, reinforce_pp, returns_to_go, token_rewards, whiten
from knowrl_core.rl.job import UpdateJob, UpdateProgress, UpdateResult
from knowrl_core.rl.loss import ClippedLoss, clipped_loss
from knowrl_core.rl.packing import PackedPass, PromptUnit, pack
from knowrl_core.rl.rollout import FlatVerdict, PromptGroup, Rollout, Verdict
from knowrl_core.rl.schedule import learning_rate
from knowrl_core.rl.update import run_update

__all__ = [
    "ALGORITHMS",
    "ClippedLoss",
    "FlatVerdict",
    "PackedPass",
    "PromptGroup",
    "PromptUnit",
    "Rollout",
    "RolloutBatch",
    "UpdateJob",
    "UpdateProgress",
    "UpdateResult",
    "Verdict",
    "clipped_loss",
    "k1",
    "learning_rate",
    "pack",
    "reinforce_pp",
    "returns_to_go",
    "run_update",
    "token_rewards",
    "whiten",
]
