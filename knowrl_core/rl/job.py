"""What an update is asked, what it reports while it runs, and what it answers. All of it crosses processes as JSON."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from knowrl_core.config.rl import RLConfig
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

    objective: Literal["policy_gradient", "supervised"] = "policy_gradient"
    """``supervised`` maximises the likelihood of all responses and looks at neither rewards nor engine
    log-probabilities: the warm-up."""

    reference_dir: Path | None
    """Hugging Face folder of the reference. Needed if ``rl.kl_coef`` is above 0; with a coefficient of 0 the KL is
    measured, but moves nothing."""

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

    snapshot_dir: Path | None = None
    """Folder for what the update has come to while it is under way; None keeps nothing. The caller removes it once the
    checkpoint stands."""

    snapshot_key: str = ""
    """Names all that the update depends on; what was kept under another key is not gone on with."""

    average_dir: Path | None = None
    """Hugging Face folder of an exponential average of the policy's weights; with it, the new average is written to
    ``average`` in the checkpoint."""

    average_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Share of the old average in the new one."""

    non_finite: Literal["raise", "discard"] = "raise"
    """A loss or gradient that is not finite fails the update, or makes it end with the policy and optimizer state that
    it began with; ``metrics["non_finite"]`` is 1 then."""


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
