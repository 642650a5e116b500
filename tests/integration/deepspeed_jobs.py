"""One process of several updates in a row, since starting takes longer than all of them: ``JOBS OUT``.

Beside what ``rank`` does, it can put a gradient that is not finite into one process.
"""

import json
import os
import sys
from pathlib import Path

import deepspeed

from knowrl_core.errors import KnowrlError
from knowrl_core.models.load import setup_torch
from knowrl_core.rl import UpdateJob
from knowrl_core.rl.distributed import trainer
from knowrl_core.rl.distributed.backend import DeepSpeedBackend
from knowrl_core.rl.distributed.config import deepspeed_settings
from knowrl_core.rl.update import run_update

RANK = int(os.environ["RANK"])
pass_loss = trainer.pass_loss


def infinite_gradient(*arguments, **options):
    """The loss stays finite."""
    part = pass_loss(*arguments, **options)
    part.loss.register_hook(lambda gradient: gradient * float("inf"))
    return part


def main():
    setup_torch(1)
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    jobs = json.loads(Path(sys.argv[1]).read_text())
    answers = {}
    for name, item in jobs.items():
        trainer.pass_loss = infinite_gradient if item["broken_rank"] == RANK else pass_loss
        job = UpdateJob.model_validate(item["job"])
        try:
            result = run_update(job, backend=DeepSpeedBackend(deepspeed_settings(job.rl)))
            answers[name] = {"result": result.model_dump(mode="json")}
        except KnowrlError as error:
            answers[name] = {"error": error.message}
    Path(f"{sys.argv[2]}.{RANK}").write_text(json.dumps(answers))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
