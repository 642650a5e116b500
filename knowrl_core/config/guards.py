"""Config of the guards: what counts as collapse, and what happens then."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from knowrl_core.config.base import NonNegativeInt, PositiveInt, Section, Share


def _off(value: Any) -> Any:
    """YAML 1.1 reads a plain ``off`` as false."""
    return "off" if value is False else value


Action = Annotated[Literal["off", "warn", "stop", "rollback"], BeforeValidator(_off)]
"""``warn``: say so and go on. ``stop``: end the run after this iteration. ``rollback``: the next iteration starts from
the best checkpoint, with a lower learning rate (see ``guards.after_rollback``)."""


class LabelBalanceGuard(Section):
    """Share of the probe called feasible. The probe holds about as many of each label."""

    lowest: Share = 0.05
    """Fires below."""

    highest: Share = 0.95
    """Fires above."""

    action: Action = "warn"
    """What happens."""

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest is {self.lowest}, expected less than highest ({self.highest})")
        return self


class VerdictEntropyGuard(Section):
    """Mean entropy of a task's verdict on the probe, in nats: at most 0.693 for two labels."""

    lowest: Annotated[float, Field(ge=0.0, le=0.7)] = 0.02
    """Fires below."""

    action: Action = "warn"
    """What happens."""


class RewardTruthGuard(Section):
    """The signature of collapse: the model agrees with itself more and more, and with the truth less."""

    window: PositiveInt = 3
    """Iterations looked back."""

    reward_rise: Annotated[float, Field(ge=0.0, le=1.0)] = 0.03
    """Fires when the candidates' mean reward rose by at least this over the window, and ..."""

    truth_fall: Annotated[float, Field(gt=0.0, le=1.0)] = 0.03
    """... the probe's balanced accuracy fell by at least this."""

    action: Action = "warn"
    """What happens."""


class ProbeGuard(Section):
    """Balanced accuracy on the probe."""

    fall: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Fires when it is this much below the best so far."""

    action: Action = "warn"
    """What happens."""


class KlGuard(Section):
    """Mean KL(policy || reference) per response token at the last optimizer step (k3 estimate, nats)."""

    highest: Annotated[float, Field(gt=0.0)] = 1.0
    """Fires above."""

    action: Action = "warn"
    """What happens. Without a KL penalty there is no reference to compare with; any action other than ``off`` or
    ``warn`` then makes the update compute one all the same."""


class GradientGuard(Section):
    """Largest gradient norm of an optimizer step, before scaling."""

    highest: Annotated[float, Field(gt=0.0)] = 1000.0
    """Fires above."""

    action: Action = "warn"
    """What happens."""


class NonFiniteGuard(Section):
    """A loss or gradient that is not finite.

    The update is thrown away: the iteration ends with the policy it began with.
    """

    action: Literal["warn", "stop", "rollback"] = "stop"
    """What happens."""


class GuardsConfig(Section):
    """Guards against collapse, asked after each iteration's evaluation.

    Every firing is an event in ``evaluate/guards.parquet``, in MLflow and on the terminal.
    """

    label_balance: LabelBalanceGuard = LabelBalanceGuard()
    """A model that always says the same."""

    verdict_entropy: VerdictEntropyGuard = VerdictEntropyGuard()
    """A model that is sure of everything."""

    reward_against_truth: RewardTruthGuard = RewardTruthGuard()
    """Reward that rises while truth falls."""

    probe: ProbeGuard = ProbeGuard()
    """Truth that falls."""

    kl: KlGuard = KlGuard()
    """A policy far from where it began."""

    gradient_norm: GradientGuard = GradientGuard()
    """Exploding gradients."""

    non_finite: NonFiniteGuard = NonFiniteGuard()
    """Broken arithmetic."""

    learning_rate_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """The learning rate is multiplied by this at each rollback."""

    after_rollback: Literal["continue", "end"] = "continue"
    """Whether the run goes on from the best checkpoint, or ends with it."""

    max_rollbacks: NonNegativeInt = 3
    """Rollbacks after which one more ends the run."""
