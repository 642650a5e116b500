"""From values to places: round ticks on an axis, and how numbers are written."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """A vertical axis.

    Attributes:
        ticks: Values with a label, from low to high; the first and the last are its ends.
        height: Its length, in pixels.
    """

    ticks: tuple[float, ...]
    height: float

    def y(self, value: float) -> float:
        """Pixels from the top, values outside clipped to the ends."""
        low, high = self.ticks[0], self.ticks[-1]
        share = (min(max(value, low), high) - low) / (high - low)
        return round(self.height * (1 - share), 2)


def axis(values: Iterable[float], height: float, *, bounds: tuple[float, float] | None = None) -> Axis:
    """An axis that holds values, from 0 on, with three to six round ticks.

    Args:
        values: What it has to hold; none or only zeros give an axis up to 1.
        height: In pixels.
        bounds: Ends that are given, such as 0 and 1 for shares.
    """
    known = [value for value in values if math.isfinite(value)]
    low, high = bounds or (min([0.0, *known]), max([0.0, *known]))
    if high <= low:
        high = low + 1.0
    step = _step((high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(tuple(float(f"{number * step:.12g}") for number in range(first, last + 1)), height)


def places(iterations: int, *, edge: float = 2.0) -> list[float]:
    """Where iterations stand on a horizontal axis, in percent of its width; a single one in the middle."""
    if iterations == 1:
        return [50.0]
    return [round(edge + (100 - 2 * edge) * number / (iterations - 1), 3) for number in range(iterations)]


def number(value: float | None) -> str:
    """A number as charts and tables show it: four significant digits, thousands apart."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 1e-3 <= abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.2e}"


def duration(seconds: float) -> str:
    """``7.1 s``, ``3 min 05 s``, ``2 h 03 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rough_duration(seconds: float) -> str:
    """``7 s``, ``3 min``, ``2 h 03 min``: of what nobody knows better."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _step(rough: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is not less."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
