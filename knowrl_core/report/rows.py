"""What the template lists: tables' rows, key numbers, facts. Plain text; the template escapes it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from knowrl_core.config import redacted
from knowrl_core.report import events
from knowrl_core.report.chart import Chart
from knowrl_core.report.charts import behaviour_charts, cost_charts, data_charts, reward, titled, update_charts
from knowrl_core.report.events import Event, shown
from knowrl_core.report.flips import SetFlips
from knowrl_core.report.gather import Report, RunReport
from knowrl_core.report.scale import duration, number
from knowrl_core.report.scores import SetScores
from knowrl_core.storage.layout import STAGES

__all__ = [
    "columns",
    "comparison_head",
    "comparison_rows",
    "config_changes",
    "config_text",
    "contents",
    "cost_line",
    "data_rows",
    "difference_rows",
    "facts",
    "flip_rows",
    "key_numbers",
    "kind_rows",
    "score_head",
    "score_rows",
    "sections",
    "version_rows",
]

Row = list[str]


@dataclass(frozen=True, slots=True)
class Tile:
    """A key number.

    Attributes:
        name: What it is.
        value: The number.
        note: What to compare it with.
    """

    name: str
    value: str
    note: str = ""


def key_numbers(run: RunReport) -> list[Tile]:
    """The numbers of the first screen."""
    found: list[Tile] = []
    at = run.best if run.best is not None else 0
    probe = run.probe
    if probe is not None:
        found.append(
            Tile(f"{titled(probe.headline)}, probe", _at(run, probe.head.values, at), _headline_note(run, probe, at))
        )
        if "auroc" in probe.metrics:
            values = probe.metrics["auroc"].values
            found.append(Tile("AUROC, probe", _at(run, values, at), f"base model {_at(run, values, 0)}"))
        if "called_feasible" in probe.metrics:
            values = probe.metrics["called_feasible"].values
            last = max((x for x, value in zip(run.iterations, values, strict=True) if value is not None), default=0)
            found.append(
                Tile(
                    f"Called feasible, iteration {last}",
                    _share(run.at(values, last)),
                    f"base model {_share(run.at(values, 0))}",
                )
            )
    paid = [value for value in reward(run) if value is not None]
    if paid:
        found.append(Tile("Reward, last", number(paid[-1]), f"first {number(paid[0])}"))
    fired = [item for item in run.events if item.kind == events.GUARD]
    found.append(
        Tile("Guards fired", str(len(fired)), ", ".join(sorted({item.text.split(" ", 1)[0] for item in fired})))
    )
    found.append(Tile("Iterations", f"{max(run.iterations, default=0)} of {run.planned}", run.state))
    found.append(Tile("Stage time", duration(run.seconds), _slowest(run)))
    return found


def _headline_note(run: RunReport, probe: SetScores, at: int) -> str:
    lower, upper = run.at(probe.head.lower, at), run.at(probe.head.upper, at)
    interval = f"95 %: {number(lower)} to {number(upper)}; " if lower is not None and upper is not None else ""
    where = f"iteration {at}; base model {_at(run, probe.head.values, 0)}" if at else "base model (iteration 0)"
    return interval + where


def _slowest(run: RunReport) -> str:
    spent = {stage: sum(value or 0.0 for value in run.metric(f"{stage}/seconds")) for stage in STAGES}
    stage = max(spent, key=spent.__getitem__)
    return f"{stage}: {spent[stage] / run.seconds:.0%}" if run.seconds else ""


def contents(run: RunReport) -> list[tuple[str, str]]:
    """Ids and names of a single run's sections."""
    found = [("truth", "Reward and truth")]
    if run.sets:
        found.append(("sets", "Labelled sets"))
    if run.flips:
        found.append(("flips", "What changed"))
    found += [(name, title) for name, title, charts in sections(run) if charts]
    return [*found, ("origin", "Origin and command")]


def sections(run: RunReport) -> list[tuple[str, str, list[Chart]]]:
    """Id, title and charts of the sections on how it went."""
    return [
        ("behaviour", "Behaviour", behaviour_charts(run)),
        ("update", "Policy update", update_charts(run)),
        ("data", "Tasks, filters and pool", data_charts(run)),
        ("cost", "Time", cost_charts(run)),
    ]


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
    last = run.iterations[-1]
    best = [f"Best ({run.best})", "95 % interval"] if run.best else []
    return ["Set", "Tasks", "Metric", "Base model", *best, f"Last ({last})", "Best constant", "TF-IDF"]


def score_rows(run: RunReport) -> list[Row]:
    """Truth at iteration 0, the best and the last, beside the controls."""
    found = []
    for item in run.sets:
        head, constants = item.head, [value for name, value in item.controls.items() if name.startswith("always")]
        best = [_at(run, head.values, run.best), _interval(run.at(head.lower, run.best), run.at(head.upper, run.best))]
        found.append(
            [
                item.name,
                f"{item.tasks:,}",
                titled(item.headline),
                _at(run, head.values, 0),
                *(best if run.best else []),
                _at(run, head.values, run.iterations[-1]),
                number(max(constants, default=None)),
                number(item.controls.get("tfidf")),
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


def comparison_head(report: Report) -> Row:
    """Column titles of :func:`comparison_rows`."""
    return [
        "Run",
        "State",
        "Iterations",
        "Best",
        *(f"{name}" for name in _set_names(report)),
        "Probe, last",
        "Called feasible, last",
        "Reward, last",
        "Guards",
        "Stage time",
    ]


def comparison_rows(report: Report) -> list[Row]:
    """Each run at its best iteration."""
    found = []
    for run in report.runs:
        sets = {item.name: item for item in run.sets}
        scores = [
            _at(run, sets[name].head.values, run.best) if name in sets else number(None) for name in _set_names(report)
        ]
        last = run.iterations[-1] if run.iterations else None
        paid = [value for value in reward(run) if value is not None]
        found.append(
            [
                run.name,
                run.state,
                f"{max(run.iterations, default=0)} of {run.planned}",
                number(run.best),
                *scores,
                _at(run, run.probe.head.values, last) if run.probe else number(None),
                _share(run.at(run.metric("evaluate/probe/called_feasible"), last)),
                number(paid[-1] if paid else None),
                str(sum(item.kind == events.GUARD for item in run.events)),
                duration(run.seconds),
            ]
        )
    return found


def difference_rows(report: Report) -> list[Row]:
    """Config fields in which runs differ."""
    return [[item.field, *(shown(value) for value in item.values)] for item in report.differences]


def config_changes(run: RunReport) -> list[Event]:
    """Changes of the config within a run."""
    return [item for item in run.events if item.kind == events.CONFIG]


def facts(run: RunReport) -> list[tuple[str, str]]:
    """Where a run comes from."""
    return [
        ("Initial model", run.model),
        ("Seed", str(run.seed)),
        ("Forked from", run.forked_from or "no other run"),
        ("State", f"{run.state}, after {run.attempts} attempt{'s' if run.attempts != 1 else ''}"),
        ("Begun", run.created),
        ("Last stage finished", run.finished or "none yet"),
        ("KnowRL", ", ".join(run.code) or "no stage yet"),
        ("Artifacts", run.place),
        ("Run id", run.run_id),
    ]


def version_rows(run: RunReport) -> list[Row]:
    """Versions, and hashes of what all history depends on."""
    return [
        [name, value] for name, value in {**run.versions, **{f"sha256 of {k}": v for k, v in run.pins.items()}}.items()
    ]


def config_text(run: RunReport) -> str:
    """The config as YAML."""
    return redacted(yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=100))


def cost_line(run: RunReport) -> str:
    """All seconds in a sentence."""
    spent = {stage: sum(value or 0.0 for value in run.metric(f"{stage}/seconds")) for stage in STAGES}
    parts = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in spent.items() if seconds)
    return f"{duration(run.seconds)} in all stages together: {parts}. Waiting between attempts is not counted."


def _set_names(report: Report) -> Iterable[str]:
    return dict.fromkeys(item.name for run in report.runs for item in run.sets)


def _at(run: RunReport, values: Any, iteration: int | None) -> str:
    return number(run.at(values, iteration))


def _interval(lower: float | None, upper: float | None) -> str:
    return number(None) if lower is None or upper is None else f"{number(lower)} to {number(upper)}"


def _share(value: float | None) -> str:
    return number(None) if value is None else f"{value:.0%}"


def _signed(value: float | None) -> str:
    return number(None) if value is None else f"{value:+.3f}"


def _part(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})"
