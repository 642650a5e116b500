"""Learning-rate schedule over the optimizer steps of a whole run."""


def learning_rate(step: int, *, peak: float, warmup_steps: int) -> float:
    """Linear warm-up, then constant: ``peak * min(1, step / warmup_steps)``.

    Args:
        step: Number of the optimizer step since the start of the run, from 1: the first one already moves.
        peak: Learning rate after the warm-up.
        warmup_steps: Steps of warm-up, over all iterations; 0 starts at the peak.
    """
    if step < 1:
        raise ValueError(f"step is {step}, expected at least 1: steps are counted from 1")
    return peak if step >= warmup_steps else peak * step / warmup_steps
