"""How much longer a stage and a run will take, from how long stages took."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from knowrl_core.report.meter import StageProgress
from knowrl_core.storage.layout import GENERATE, UPDATE, StageKey
from knowrl_core.storage.manifest import Manifest

_LAST: Final = 5
"""Iterations that count: candidates get more or longer with the policy."""


def usual_seconds(key: StageKey, keys: Sequence[StageKey], history: Mapping[StageKey, Manifest]) -> float | None:
    """Median of what the last stages of this kind took; None before the first.

    Iteration 0 counts only while there is no other, since it also loads the model. A warm-up trains on other data than
    the updates after it; neither says anything about the other.

    Args:
        key: The stage.
        keys: The run's stages.
        history: Those that are committed.
    """
    warmup = StageKey(1, GENERATE) not in keys
    kind = _kind(key, warmup=warmup)
    alike = [other for other in history if other != key and other.iteration > 0 and _kind(other, warmup=warmup) == kind]
    first = StageKey(0, key.stage)
    if not alike and first != key and first in history:
        alike = [first]
    recent = sorted(alike, key=lambda other: other.iteration)[-_LAST:]
    return median(history[other].seconds for other in recent) if recent else None


def stage_left(progress: StageProgress, usual: float | None) -> float | None:
    """Seconds until the stage is done, from its speed and from what it took before; None if neither tells.

    The nearer the end, the more its own speed counts.
    """
    before = max(0.0, usual - progress.seconds) if usual is not None else None
    pace = None
    if progress.counts and progress.per_second:
        pace = max(0, progress.total - progress.done) / progress.per_second
    if pace is None:
        return before or None  # 0: it takes longer than usual, and nobody knows how much
    if before is None:
        return pace
    return progress.fraction * pace + (1.0 - progress.fraction) * before


def run_left(
    progress: StageProgress | None, keys: Sequence[StageKey], history: Mapping[StageKey, Manifest]
) -> float | None:
    """Seconds until the run is done; None while a stage that is to come was never measured.

    Args:
        progress: The stage under way.
        keys: The run's stages.
        history: Those that are committed.
    """
    total = 0.0
    for key in keys:
        if key in history:
            continue
        seconds = usual_seconds(key, keys, history)
        if progress is not None and key == progress.key:
            left = stage_left(progress, seconds)
            seconds = left if left is not None or seconds is None else 0.0
        if seconds is None:
            return None
        total += seconds
    return total


def _kind(key: StageKey, *, warmup: bool) -> str:
    return "warm-up" if warmup and key == StageKey(1, UPDATE) else key.stage
