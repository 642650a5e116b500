"""Rows of the report's tables. Plain text; the template escapes it."""

from typing import Any

from knowrl_core.evaluation.controls import TFIDF
from knowrl_core.report import events
from knowrl_core.report.chart import Chart
from knowrl_core.report.charts import reward, titled
from knowrl_core.report.events import shown
from knowrl_core.report.flips import SetFlips
from knowrl_core.report.gather import Report, RunReport
from knowrl_core.report.scale import duration, number

__all__ = [
    "columns",
    "comparison_rows",
    "data_rows",
    "difference_rows",
    "flip_rows",
    "kind_rows",
    "score_head",
    "score_rows",
    "version_rows",
]

Row = list[str]


def columns(chart: Chart) -> Row:
    """Column titles of a chart's data, after the iteration."""
    found: Row = []
    for line in chart.lines:
        found.append(line.label)
        if any(value is not None for value in line.lower):
            found.append(f"{line.label}, 95 % interval")
    return found


def data_rows(chart: Chart) -> list[Row]:
    """A chart's data."""
    found = []
    for place, iteration in enumerate(chart.iterations):
        row = [str(iteration)]
        for line in chart.lines:
            row.append(number(line.values[place]))
            if any(value is not None for value in line.lower):
                row.append(_interval(line.lower[place], line.upper[place]))
        found.append(row)
    return found


def score_head(run: RunReport) -> Row:
    """Column titles of :func:`score_rows`."""
    best = [f"Best ({run.best})", "95 % interval"] if run.best else []
    return ["Set", "Tasks", "Metric", "Base model", *best, f"Last ({number(run.last)})", "Best constant", "TF-IDF"]


def score_rows(run: RunReport) -> list[Row]:
    """Truth at iteration 0, the best and the last, beside the controls."""
    found = []
    for item in run.sets:
        head = item.head
        best = [at(run, head.values, run.best), _interval(run.at(head.lower, run.best), run.at(head.upper, run.best))]
        found.append(
            [
                item.name,
                f"{item.tasks:,}",
                titled(item.headline),
                at(run, head.values, 0),
                *(best if run.best else []),
                at(run, head.values, run.last),
                number(item.best_constant),
                number(item.controls.get(TFIDF)),
            ]
        )
    return found


def flip_rows(run: RunReport) -> list[Row]:
    """How many tasks flipped on each set."""
    return [
        [
            item.dataset,
            f"{item.tasks:,}",
            f"{item.mended:,}",
            f"{item.broken:,}",
            "< 0.001" if item.p < 0.001 else f"{item.p:.3f}",
            _signed(item.difference),
            f"{_signed(item.lower)} to {_signed(item.upper)}" if item.lower is not None else number(None),
        ]
        for item in run.flips
    ]


def kind_rows(flips: SetFlips) -> list[Row]:
    """Right answers by kind."""
    return [
        [
            kind.name.replace("_", " "),
            kind.truth,
            str(kind.tasks),
            _part(kind.right_before, kind.tasks),
            _part(kind.right_after, kind.tasks),
            f"{kind.right_after - kind.right_before:+d}",
        ]
        for kind in flips.kinds
    ]


def comparison_rows(report: Report) -> list[Row]:
    """A number a row, a run a column."""
    runs = report.runs
    rows = [
        ["State", *(f"{run.state} at {max(run.iterations, default=0)} of {run.planned}" for run in runs)],
        ["Best iteration, by the probe", *(number(run.best) for run in runs)],
    ]
    for name in dict.fromkeys(item.name for run in runs for item in run.sets):
        rows += [
            [f"{name}: {when}", *(_score(run, name, at_) for run, at_ in zip(runs, iterations, strict=True))]
            for when, iterations in (
                ("base model", [0] * len(runs)),
                ("best iteration", [run.best for run in runs]),
                ("last iteration", [run.last for run in runs]),
            )
        ]
    balance = "evaluate/probe/called_feasible"
    paid = [[value for value in reward(run) if value is not None] for run in runs]
    return [
        *rows,
        [
            "Called feasible on the probe, last iteration",
            *(share(run.at(run.metric(balance), run.last)) for run in runs),
        ],
        ["Reward, last iteration", *(number(own[-1] if own else None) for own in paid)],
        ["Guards fired", *(str(sum(item.kind == events.GUARD for item in run.events)) for run in runs)],
        ["Stage time", *(duration(run.seconds) for run in runs)],
    ]


def _score(run: RunReport, name: str, iteration: int | None) -> str:
    """A set's headline metric with its interval."""
    item = next((item for item in run.sets if item.name == name), None)
    if item is None or run.at(item.head.values, iteration) is None:
        return number(None)
    lower, upper = run.at(item.head.lower, iteration), run.at(item.head.upper, iteration)
    interval = f" ({_interval(lower, upper)})" if lower is not None else ""
    return at(run, item.head.values, iteration) + interval


def difference_rows(report: Report) -> list[Row]:
    """Config fields in which runs differ."""
    return [[item.field, *(shown(value) for value in item.values)] for item in report.differences]


def version_rows(run: RunReport) -> list[Row]:
    """Versions, and hashes of what all history depends on."""
    return [
        [name, value] for name, value in {**run.versions, **{f"sha256 of {k}": v for k, v in run.pins.items()}}.items()
    ]


def at(run: RunReport, values: Any, iteration: int | None) -> str:
    """A value of an iteration as text."""
    return number(run.at(values, iteration))


def _interval(lower: float | None, upper: float | None) -> str:
    return number(None) if lower is None or upper is None else f"{number(lower)} to {number(upper)}"


def share(value: float | None) -> str:
    """A share in percent."""
    return number(None) if value is None else f"{value:.0%}"


def _signed(value: float | None) -> str:
    return number(None) if value is None else f"{value:+.3f}"


def _part(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})"
