"""``rank`` in which the second process does not find its policy."""

import os
from pathlib import Path

from knowrl_core.rl.distributed import rank

train = rank._train


def without_policy(job, progress):
    return train(job.model_copy(update={"policy_dir": Path("/nowhere/policy")}), progress)


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        rank._train = without_policy
    rank.main()
