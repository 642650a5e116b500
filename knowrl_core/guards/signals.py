"""The guards: what each looks at, and when it fires.

Pure functions of the metrics of an iteration and of the iterations that it came from. A metric that is absent (it is
undefined, or was not measured) fires nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from knowrl_core.config.guards import GuardsConfig
from knowrl_core.guards.decision import Point
from knowrl_core.storage.schemas import GuardRecord

Metrics = Mapping[str, float]

BALANCED_ACCURACY: Final = "probe/balanced_accuracy"
REWARD: Final = "reward/candidates"
"""Without anchors: their reward is truth."""

_ROUNDING: Final = 1e-9
"""A difference of scores that reaches its bound but for rounding errors has reached it."""


class Finding(NamedTuple):
    """Why a guard fires; fields as in ``GuardRecord``."""

    metric: str
    value: float | None
    bound: float
    message: str


Guard = Callable[[GuardsConfig, Metrics, Sequence[Point]], Finding | None]
"""Given the config, the metrics of this iteration, and the iterations that it came from, oldest first."""


def label_balance(config: GuardsConfig, now: Metrics, _: Sequence[Point]) -> Finding | None:
    """The probe is nearly all called one label."""
    low = _below(now, "probe/called_feasible", config.label_balance.lowest, "guards.label_balance.lowest")
    return low or _above(now, "probe/called_feasible", config.label_balance.highest, "guards.label_balance.highest")


def verdict_entropy(config: GuardsConfig, now: Metrics, _: Sequence[Point]) -> Finding | None:
    """The model is sure of everything."""
    return _below(now, "probe/verdict_entropy", config.verdict_entropy.lowest, "guards.verdict_entropy.lowest")


def reward_against_truth(config: GuardsConfig, now: Metrics, lineage: Sequence[Point]) -> Finding | None:
    """Reward is above its lowest in the window, and truth below its highest.

    The window is what there is of it, so that a collapse within one or two iterations is seen, too. The reward of an
    iteration was earned by the policy that it began with, so the first two rewards span the truth from iteration 0 on.
    """
    guard = config.reward_against_truth
    window = lineage[-guard.window :]
    rewards = [point.reward for point in window if point.reward is not None]
    truths = [point.balanced_accuracy for point in window if point.balanced_accuracy is not None]
    reward, truth = now.get(REWARD), now.get(BALANCED_ACCURACY)
    if reward is None or truth is None or not rewards or not truths:
        return None
    rise, fall = reward - min(rewards), max(truths) - truth
    if rise < guard.reward_rise - _ROUNDING or fall < guard.truth_fall - _ROUNDING:
        return None
    message = (
        f"within {guard.window} iterations {REWARD} rose by {rise:.4g} to {reward:.4g} while {BALANCED_ACCURACY} fell "
        f"by {fall:.4g} to {truth:.4g} (guards.reward_against_truth: reward_rise {guard.reward_rise:g}, truth_fall "
        f"{guard.truth_fall:g})"
    )
    return Finding(BALANCED_ACCURACY, truth, max(truths) - guard.truth_fall, message)


def probe(config: GuardsConfig, now: Metrics, lineage: Sequence[Point]) -> Finding | None:
    """Truth is far below its best."""
    known = {p.iteration: p.balanced_accuracy for p in lineage if p.balanced_accuracy is not None}
    truth = now.get(BALANCED_ACCURACY)
    if truth is None or not known:
        return None
    best = max(known, key=known.__getitem__)
    fall = known[best] - truth
    if fall < config.probe.fall - _ROUNDING:
        return None
    message = (
        f"{BALANCED_ACCURACY} is {truth:.4g}, {fall:.4g} below its best ({known[best]:.4g} in iteration {best}; "
        f"guards.probe.fall {config.probe.fall:g})"
    )
    return Finding(BALANCED_ACCURACY, truth, known[best] - config.probe.fall, message)


def kl(config: GuardsConfig, now: Metrics, _: Sequence[Point]) -> Finding | None:
    """The policy is far from the reference."""
    return _above(now, "kl/end", config.kl.highest, "guards.kl.highest")


def gradient_norm(config: GuardsConfig, now: Metrics, _: Sequence[Point]) -> Finding | None:
    """A gradient exploded."""
    return _above(now, "grad_norm/max", config.gradient_norm.highest, "guards.gradient_norm.highest")


def non_finite(_config: GuardsConfig, now: Metrics, _: Sequence[Point]) -> Finding | None:
    """A loss or gradient was not finite."""
    if not now.get("non_finite"):
        return None
    return Finding("non_finite", None, 0.0, "a loss or gradient was not finite, and the update was thrown away")


GUARDS: Final[Mapping[str, Guard]] = {
    guard.__name__: guard
    for guard in (label_balance, verdict_entropy, reward_against_truth, probe, kl, gradient_norm, non_finite)
}
"""Every guard by the name of its section in the config."""


def active(config: GuardsConfig) -> dict[str, str]:
    """The action of each guard that is on."""
    actions = {name: getattr(config, name).action for name in GUARDS}
    return {name: action for name, action in actions.items() if action != "off"}


def ask(config: GuardsConfig, iteration: int, now: Metrics, lineage: Sequence[Point]) -> list[GuardRecord]:
    """Which guards fire in an iteration.

    Iteration 0 is the untouched model: nothing has collapsed yet and nothing can be undone, so guards only warn there.

    Args:
        config: The guards.
        iteration: The iteration.
        now: Its metrics, of the update and of the evaluation.
        lineage: The iterations that it came from, oldest first.
    """
    firings = []
    for name, action in active(config).items():
        finding = GUARDS[name](config, now, lineage)
        if finding is not None:
            action_now = "warn" if iteration == 0 else action
            firings.append(
                GuardRecord(iteration, name, finding.metric, finding.value, finding.bound, action_now, finding.message)
            )
    return firings


def _below(now: Metrics, metric: str, bound: float, field: str) -> Finding | None:
    value = now.get(metric)
    if value is None or value >= bound:
        return None
    return Finding(metric, value, bound, f"{metric} is {value:.4g}, below {field} ({bound:g})")


def _above(now: Metrics, metric: str, bound: float, field: str) -> Finding | None:
    value = now.get(metric)
    if value is None or value <= bound:
        return None
    return Finding(metric, value, bound, f"{metric} is {value:.4g}, above {field} ({bound:g})")
