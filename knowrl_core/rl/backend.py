"""Where an update is computed: in this process, or spread over several."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedModel

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.batches import MiniBatch
from knowrl_core.rl.checkpoint import Moments, TrainerState, load_model, save_checkpoint
from knowrl_core.rl.experience import Experience, Floats
from knowrl_core.rl.forward import Precision
from knowrl_core.rl.job import UpdateJob
from knowrl_core.rl.trainer import Objective, StepOutcome, Trainer, all_logprobs
from knowrl_core.rl.tree import PackedPass


class PolicyTrainer(Protocol):
    """Makes optimizer steps on a policy."""

    model: PreTrainedModel
    state: TrainerState

    def begin(self) -> None:
        """Make the weights ready for steps."""
        ...

    def step(self, mini: MiniBatch, data: Experience) -> StepOutcome:
        """One optimizer step."""
        ...

    def moments(self) -> Moments:
        """The optimizer's state by parameter name."""
        ...


@runtime_checkable
class Restorable(Protocol):
    """A trainer that an update under way can be taken out of, and put back into."""

    def trained(self) -> dict[str, Tensor]:
        """The weights that are trained, by name."""
        ...

    def restore(self, weights: dict[str, Tensor], moments: Moments, state: TrainerState) -> None:
        """Put back what an interrupted update had come to; goes after :meth:`PolicyTrainer.begin`."""
        ...


class Backend(Protocol):
    """Computes the parts of an update that need the model. All processes of one call it alike."""

    main: bool
    """Whether this process writes the checkpoint."""

    def load(self, folder: Path, device: str) -> PreTrainedModel:
        """The model of a folder, float32, to compute with."""
        ...

    def logprobs(
        self,
        model: PreTrainedModel,
        passes: Sequence[PackedPass],
        n_tokens: int,
        *,
        precision: Precision,
        on_pass: Callable[[int], None],
    ) -> Floats:
        """Log-probabilities of all response tokens, [n_tokens]."""
        ...

    def trainer(
        self, model: PreTrainedModel, rl: RLConfig, state: TrainerState, moments: Moments, *, objective: Objective
    ) -> PolicyTrainer:
        """A trainer of the model."""
        ...

    def save(self, trainer: PolicyTrainer, job: UpdateJob) -> None:
        """Write the checkpoint."""
        ...

    def release(self) -> None:
        """Let go of a trainer that is not used any more."""
        ...


class TorchBackend:
    """One process, one device."""

    main = True

    def load(self, folder: Path, device: str) -> PreTrainedModel:
        """All weights here."""
        return load_model(folder, device)

    def logprobs(
        self,
        model: PreTrainedModel,
        passes: Sequence[PackedPass],
        n_tokens: int,
        *,
        precision: Precision,
        on_pass: Callable[[int], None],
    ) -> Floats:
        """Compute all passes here."""
        return all_logprobs(model, passes, n_tokens, precision=precision, on_pass=on_pass)

    def trainer(
        self, model: PreTrainedModel, rl: RLConfig, state: TrainerState, moments: Moments, *, objective: Objective
    ) -> PolicyTrainer:
        """AdamW here."""
        return Trainer(model, rl, state, moments, objective=objective)

    def save(self, trainer: PolicyTrainer, job: UpdateJob) -> None:
        """Write the weights as they are here."""
        save_checkpoint(trainer.model, trainer.moments(), trainer.state, source=job.policy_dir, output=job.output_dir)

    def release(self) -> None:
        """Nothing is held here."""
