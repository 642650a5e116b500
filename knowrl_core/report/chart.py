"""What a chart shows, apart from how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from knowrl_core.report.scale import number
from knowrl_core.report.scores import Values


@dataclass(frozen=True, slots=True)
class Line:
    """Values by iteration.

    Attributes:
        label: What they are.
        values: One for each of the chart's iterations.
        lower: Lower ends of intervals, if there are any.
        upper: Upper ends.
        look: Number of its colour, marker and dash.
    """

    label: str
    values: Values
    lower: Values = field(default_factory=list)
    upper: Values = field(default_factory=list)
    look: int = 0

    @property
    def known(self) -> list[float]:
        """All values that a vertical axis has to hold."""
        return [value for value in (*self.values, *self.lower, *self.upper) if value is not None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A level to compare with.

    Attributes:
        label: What it is.
        value: Where it is.
        look: base, constant, tfidf or bound.
    """

    label: str
    value: float
    look: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at an iteration.

    Attributes:
        iteration: The iteration.
        letter: Stands for it in the chart; empty for one that is only hinted at.
        look: Kind of event.
    """

    iteration: int
    letter: str
    look: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart by iteration: lines, or columns that are stacked.

    Attributes:
        name: Unique in the report; becomes an id.
        title: Its heading.
        about: What it means, in a sentence.
        iterations: The horizontal axis.
        lines: What is drawn, in the order of the legend.
        rules: Levels to compare with.
        marks: Events.
        bounds: Ends of the vertical axis, where they are given.
        stacked: Draw columns on top of each other.
        large: It is the first of its section.
    """

    name: str
    title: str
    about: str
    iterations: Sequence[int]
    lines: Sequence[Line]
    rules: Sequence[Rule] = ()
    marks: Sequence[Mark] = ()
    bounds: tuple[float, float] | None = None
    stacked: bool = False
    large: bool = False

    @property
    def empty(self) -> bool:
        """Nothing to draw."""
        return not any(line.known for line in self.lines) or (
            self.stacked and not any(value for line in self.lines for value in line.known)
        )

    @property
    def summary(self) -> str:
        """The chart in words, for those who do not see it."""
        if not self.iterations:
            return f"{self.title}: no iterations."
        kind = "Stacked columns" if self.stacked else "Line chart"
        parts = [_spoken(line, self.iterations) for line in self.lines]
        parts += [f"{rule.label} at {number(rule.value)}" for rule in self.rules]
        span = f"iterations {self.iterations[0]} to {self.iterations[-1]}"
        return f"{kind}, {self.title}, {span}: {'; '.join(parts)}. The numbers are in the table below it."


def _spoken(line: Line, iterations: Sequence[int]) -> str:
    known = [(at, value) for at, value in zip(iterations, line.values, strict=True) if value is not None]
    if not known:
        return f"{line.label}: no values"
    (first, start), (last, end) = known[0], known[-1]
    if len(known) == 1:
        return f"{line.label}: {number(start)} at iteration {first}"
    high = max(known, key=lambda item: item[1])
    low = min(known, key=lambda item: item[1])
    return (
        f"{line.label}: {number(start)} at iteration {first}, {number(end)} at iteration {last}, "
        f"lowest {number(low[1])} at {low[0]}, highest {number(high[1])} at {high[0]}"
    )
