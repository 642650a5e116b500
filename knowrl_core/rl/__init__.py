"""The policy update: REINFORCE++ on verdicts, with shared-prefix packing.

Here is what crosses the process boundary; importing it does not load PyTorch, which only the process that trains needs.
:func:`knowrl_core.rl.update.run_update` takes an :class:`UpdateJob` and leaves a checkpoint.
"""

from knowrl_core.rl.job import UpdateJob, UpdateProgress, UpdateResult
from knowrl_core.rl.rollout import FlatVerdict, PromptGroup, Rollout, Verdict

__all__ = ["FlatVerdict", "PromptGroup", "Rollout", "UpdateJob", "UpdateProgress", "UpdateResult", "Verdict"]
