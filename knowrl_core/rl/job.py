"""What an update is asked, what it reports while it runs, and what it answers. All of it crosses processes as JSON."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from knowrl_core.config.learning import RLConfig
from knowrl_core.rl.rollout import Rollout
from knowrl_core.storage.schemas import RolloutRecord, StepRecord

Phase = Literal["reference", "policy", "train", "save"]
"""``reference``, ``policy``: log-probabilities before the first step, counted in passes. ``train``: counted in
optimizer steps. ``save``: the checkpoint is being written."""


class _Message(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class UpdateJob(_Message):
    """One update: a policy, its rollouts, and where the new checkpoint goes."""

    policy_dir: Path
    """Hugging Face folder of the policy that the rollouts were sampled from."""

    reference_dir: Path | None
    """Hugging Face folder of the reference. Needed if ``rl.kl_coef`` is above 0, else not looked at."""

    optimizer_dir: Path | None
    """Checkpoint whose optimizer state is continued; None starts a fresh AdamW at step 0."""

    output_dir: Path
    """Folder of the new checkpoint. It must not exist; after an error it does not exist either."""

    rollouts: tuple[Rollout, ...]
    """The tasks to train on; may be empty."""

    rl: RLConfig
    """Algorithm and sizes."""

    device: Literal["cpu", "cuda"]
    """Where to train."""

    shuffle_seed: Annotated[int, Field(ge=0, lt=2**63)]
    """Stream of the order of the tasks."""


class UpdateProgress(_Message):
    """How far an update has come."""

    phase: Phase
    """What it is doing."""

    done: int
    """Units done in this phase."""

    total: int
    """Units of this phase."""

    step: StepRecord | None = None
    """The optimizer step just made (phase ``train``)."""


class UpdateResult(_Message):
    """What an update leaves beside the checkpoint. Holds no timings: equal jobs give equal results on the CPU."""

    rollouts: tuple[RolloutRecord, ...]
    """One record a verdict trained on, in the order of the job."""

    steps: tuple[StepRecord, ...]
    """One record an optimizer step."""

    metrics: dict[str, float]
    """Summary, all finite; a name is absent where it is undefined (no rollouts, no reference)."""
