"""Charts as inline SVG that takes its colours from the page and its width from its place.

Horizontal places are percentages, so that text, markers and line widths keep their size on any screen; only the paths,
which know no percentages, lie in a nested picture that is stretched (their strokes are not: ``vector-effect``).
"""

from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from markupsafe import Markup, escape

from knowrl_core.report.chart import Chart, Line, Mark
from knowrl_core.report.scale import Axis, axis, places
from knowrl_core.report.scores import Values

LOOKS: Final = 8
"""Colours, markers and dashes; further series begin anew."""
HEIGHT: Final = 190.0
LARGE: Final = 290.0
TOP: Final = 16.0
"""Pixels above the axis, for the letters of events."""
BOTTOM: Final = 27.0
"""Pixels below it, for its labels."""
MARKERS: Final = 40
"""Most markers on a line."""


def draw(chart: Chart) -> tuple[Markup, Markup]:
    """The vertical axis' labels, and the chart beside them; both of the same height."""
    height = LARGE if chart.large else HEIGHT
    values = _totals(chart.lines) if chart.stacked else [value for line in chart.lines for value in line.known]
    up = axis([*values, *(rule.value for rule in chart.rules)], height, bounds=chart.bounds)
    number = len(chart.iterations)
    xs = places(number, edge=50 / number if chart.stacked else 2.0)
    whole = height + TOP + BOTTOM
    size = {"height": f"{whole:g}", "aria_hidden": "true", "focusable": "false"}
    labels = _join(
        _tag("text", f"{tick:,.10g}", x="38", y=f"{up.y(tick) + TOP + 4:g}", text_anchor="end") for tick in up.ticks
    )
    labels += _tag("text", "iter.", x="38", y=f"{whole - 5:g}", text_anchor="end")
    grid = _join(_tag("line", x1="0", x2="100%", y1=up.y(tick), y2=up.y(tick), class_="grid") for tick in up.ticks)
    body = _columns(chart, up, xs) if chart.stacked else _lines(chart, up, xs)
    inner = _tag("svg", grid + _marks(chart, xs, height) + body, y=TOP, height=f"{height:g}", width="100%", class_="in")
    below = _join(
        _tag("text", str(at), x=f"{x:g}%", y=f"{whole - 5:g}", text_anchor="middle")
        for at, x in _labelled(chart.iterations, xs)
    )
    cross = _tag("line", y1=TOP, y2=f"{height + TOP:g}", x1="0", x2="0", class_="cross")
    area = _tag(
        "svg",
        inner + _letters(chart, xs) + below + cross,
        width="100%",
        class_="area",
        data_xs=" ".join(f"{x:g}" for x in xs),
        **size,
    )
    return _tag("svg", labels, width="42", class_="axis", **size), area


def swatch(look: int | str, *, stacked: bool = False) -> Markup:
    """A legend's sample of a series."""
    size = {"width": "26", "height": "12", "aria_hidden": "true", "focusable": "false"}
    if stacked:
        return _tag("svg", _tag("rect", x="6", y="0", width="14", height="12", class_=f"bar {_look(look)}"), **size)
    line = _tag("line", x1="0", x2="26", y1="6", y2="6", class_=f"line {_look(look)}")
    marker = _marker(look, "13", 6) if isinstance(look, int) else Markup()
    return _tag("svg", line + marker, **size)


def _lines(chart: Chart, up: Axis, xs: Sequence[float]) -> Markup:
    bands = _join(_band(line, up, xs) for line in chart.lines)
    paths = _join(
        _tag(
            "path", d=_path(line.values, up, xs), class_=f"line {_look(line.look)}", vector_effect="non-scaling-stroke"
        )
        for line in chart.lines
        if len([value for value in line.values if value is not None]) > 1
    )
    stretched = _tag(
        "svg", bands + paths, viewBox=f"0 0 1000 {up.height:g}", preserveAspectRatio="none", width="100%",
        height=f"{up.height:g}", class_="in",
    )  # fmt: skip
    rules = _join(
        _tag("line", x1="0", x2="100%", y1=up.y(rule.value), y2=up.y(rule.value), class_=f"line {_look(rule.look)}")
        for rule in chart.rules
    )
    every = -(-len(xs) // MARKERS)
    markers = _join(
        _marker(line.look, f"{x:g}%", up.y(value))
        for line in chart.lines
        for place, (x, value) in enumerate(zip(xs, line.values, strict=True))
        if value is not None and place % every == 0
    )
    alone = _join(_whisker(line, up, xs) for line in chart.lines) if len(xs) == 1 else Markup()
    return rules + stretched + alone + markers


def _columns(chart: Chart, up: Axis, xs: Sequence[float]) -> Markup:
    found, base = [], [0.0] * len(xs)
    width = 72 / len(xs)
    for line in chart.lines:
        for place, value in enumerate(line.values):
            if not value:
                continue
            top, bottom = up.y(base[place] + value), up.y(base[place])
            base[place] += value
            found.append(
                _tag(
                    "rect", x=f"{xs[place] - width / 2:.3f}%", width=f"{width:.3f}%", y=top,
                    height=f"{max(bottom - top, 0.5):.2f}", class_=f"bar {_look(line.look)}",
                )
            )  # fmt: skip
    return _join(found)


def _band(line: Line, up: Axis, xs: Sequence[float]) -> Markup:
    """The interval, as one area for each stretch without a gap."""
    areas, run = [], []
    ends = zip(xs, line.lower, line.upper, strict=True) if line.lower and line.upper else ()
    for item in (*ends, None):
        if item is not None and item[1] is not None and item[2] is not None:
            run.append((item[0] * 10, up.y(item[1]), up.y(item[2])))
        elif run:
            there = [f"{x:g},{high:g}" for x, _, high in run]
            back = [f"{x:g},{low:g}" for x, low, _ in reversed(run)]
            areas.append(_tag("polygon", points=" ".join(there + back), class_=f"band {_look(line.look)}"))
            run = []
    return _join(areas)


def _whisker(line: Line, up: Axis, xs: Sequence[float]) -> Markup:
    """The interval of a single iteration."""
    if not line.lower or not line.upper or line.lower[0] is None or line.upper[0] is None:
        return Markup()
    x = f"{xs[0]:g}%"
    y1, y2 = up.y(line.lower[0]), up.y(line.upper[0])
    return _tag("line", x1=x, x2=x, y1=y1, y2=y2, class_=f"whisker {_look(line.look)}")


def _path(values: Values, up: Axis, xs: Sequence[float]) -> str:
    parts, pen_up = [], True
    for x, value in zip(xs, values, strict=True):
        if value is not None:
            parts.append(f"{'M' if pen_up else 'L'}{x * 10:g} {up.y(value):g}")
        pen_up = value is None
    return "".join(parts)


def _marks(chart: Chart, xs: Sequence[float], height: float) -> Markup:
    return _join(
        _tag(
            "line",
            x1=f"{x:g}%",
            x2=f"{x:g}%",
            y1="0",
            y2=f"{height if mark.letter else 7:g}",
            class_=f"mark {mark.look}",
        )
        for mark, x in _placed(chart, xs)
    )


def _letters(chart: Chart, xs: Sequence[float]) -> Markup:
    by_place: dict[float, list[str]] = {}
    for mark, x in _placed(chart, xs):
        letters = by_place.setdefault(x, [])
        if mark.letter and mark.letter not in letters:
            letters.append(mark.letter)
    return _join(
        _tag("text", "".join(letters), x=f"{x:g}%", y="11", text_anchor="middle", class_="letter")
        for x, letters in by_place.items()
    )


def _placed(chart: Chart, xs: Sequence[float]) -> list[tuple[Mark, float]]:
    at = dict(zip(chart.iterations, xs, strict=True))
    return [(mark, at[mark.iteration]) for mark in chart.marks if mark.iteration in at]


def _labelled(iterations: Sequence[int], xs: Sequence[float]) -> list[tuple[int, float]]:
    """At most nine iterations, evenly spread."""
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    every = next(step for step in steps if len(iterations) / step <= 9)
    return [(at, x) for place, (at, x) in enumerate(zip(iterations, xs, strict=True)) if place % every == 0]


def _totals(lines: Sequence[Line]) -> list[float]:
    return [sum(value or 0.0 for value in column) for column in zip(*(line.values for line in lines), strict=True)]


def _marker(look: int | str, x: str, y: float) -> Markup:
    shape = look % LOOKS if isinstance(look, int) else 0
    return _tag("use", href=f"#m{shape}", x=x, y=f"{y:g}", class_=_look(look))


def _look(look: int | str) -> str:
    return f"s{look % LOOKS}" if isinstance(look, int) else f"r-{look}"


def _tag(name: str, content: str = "", **attributes: Any) -> Markup:
    """An element; attribute names with ``_`` for ``-``, values escaped."""
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{told}>{escape(content)}</{name}>")  # noqa: S704 - all but our own names is escaped


def _join(parts: Any) -> Markup:
    return Markup().join(parts)
