"""Learning-rate schedule over the optimizer steps of a whole run."""

import math

from knowrl_core.config.rl import RLConfig


def learning_rate(step: int, rl: RLConfig) -> float:
    """Learning rate of an optimizer step: linear warm-up, then a linear or cosine decay, or constant.

    ``peak * step / warmup_steps`` during the warm-up. With ``x`` the share of the decay that is over, 0 to 1:
    ``low + (peak - low) (1 - x)`` or ``low + (peak - low) (1 + cos(pi x)) / 2``.

    Args:
        step: Number of the optimizer step since the start of the run, from 1: the first one already moves.
        rl: Peak and lengths. Warm-up and decay span iterations.
    """
    if step < 1:
        raise ValueError(f"step is {step}, expected at least 1: steps are counted from 1")
    peak, low = rl.learning_rate, rl.min_learning_rate
    if step < rl.warmup_steps:
        return peak * step / rl.warmup_steps
    if not rl.decay_steps:
        return peak
    over = min(1.0, (step - rl.warmup_steps) / rl.decay_steps)
    left = 1.0 - over if rl.schedule == "linear" else (1.0 + math.cos(math.pi * over)) / 2.0
    return low + (peak - low) * left
