"""What stands around the charts: key numbers, what happened on the way, sections, facts. The template escapes it."""

from dataclasses import dataclass
from typing import Final

import yaml

from knowrl_core.report import events
from knowrl_core.report.chart import Chart
from knowrl_core.report.charts import (
    LETTERS,
    behaviour_charts,
    cost_charts,
    data_charts,
    reward,
    titled,
    update_charts,
)
from knowrl_core.report.events import Event
from knowrl_core.report.gather import RunReport
from knowrl_core.report.rows import at, share
from knowrl_core.report.scale import duration, number
from knowrl_core.report.scores import SetScores
from knowrl_core.storage.layout import STAGES

__all__ = [
    "config_changes",
    "config_text",
    "contents",
    "cost_line",
    "facts",
    "key_numbers",
    "sections",
    "timeline",
]

TIMELINE: Final = 60
"""Entries of the timeline; the earliest are left out."""


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
    best = run.best or 0
    probe = run.probe
    if probe is not None:
        found.append(
            Tile(f"{titled(probe.headline)}, probe", at(run, probe.head.values, best), _headline_note(run, probe, best))
        )
        if "auroc" in probe.metrics:
            values = probe.metrics["auroc"].values
            found.append(Tile("AUROC, probe", at(run, values, best), f"base model {at(run, values, 0)}"))
        if "called_feasible" in probe.metrics:
            values = probe.metrics["called_feasible"].values
            last = run.last or 0
            found.append(
                Tile(
                    f"Called feasible, iteration {last}",
                    share(run.at(values, last)),
                    f"base model {share(run.at(values, 0))}",
                )
            )
    paid = [value for value in reward(run) if value is not None]
    if paid:
        found.append(Tile("Reward, last", number(paid[-1]), f"first {number(paid[0])}"))
    fired = [item for item in run.events if item.kind == events.GUARD]
    found.append(Tile("Guards fired", str(len(fired)), ", ".join(sorted({item.subject for item in fired}))))
    found.append(Tile("Iterations", f"{max(run.iterations, default=0)} of {run.planned}", run.state))
    found.append(Tile("Stage time", duration(run.seconds), _slowest(run)))
    return found


def _headline_note(run: RunReport, probe: SetScores, best: int) -> str:
    lower, upper = run.at(probe.head.lower, best), run.at(probe.head.upper, best)
    interval = f"95 %: {number(lower)} to {number(upper)}; " if lower is not None and upper is not None else ""
    where = f"iteration {best}; base model {at(run, probe.head.values, 0)}" if best else "base model (iteration 0)"
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


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened, once or in several iterations.

    Attributes:
        letter: As in the charts.
        kind: Kind of event.
        when: Iterations.
        text: What happened; of several times the last.
    """

    letter: str
    kind: str
    when: str
    text: str


def timeline(run: RunReport) -> list[Entry]:
    """What happened on the way, each guard in one entry."""
    groups: dict[tuple[str, str, int], list[Event]] = {}
    for number_, item in enumerate(run.events):
        once = -1 if item.kind == events.GUARD else number_
        groups.setdefault((item.kind, item.subject, once), []).append(item)
    return [Entry(LETTERS[own[0].kind], own[0].kind, _when(own), own[-1].text) for own in groups.values()][-TIMELINE:]


def _when(own: list[Event]) -> str:
    if len(own) == 1:
        return f"Iteration {own[0].iteration}"
    first, last = own[0].iteration, own[-1].iteration
    if last - first + 1 == len(own):
        return f"Iterations {first} to {last}"
    return f"{len(own)} times in iterations {first} to {last}, at last"


def sections(run: RunReport) -> list[tuple[str, str, list[Chart]]]:
    """Id, title and charts of the sections on how it went."""
    return [
        ("behaviour", "Behaviour", behaviour_charts(run)),
        ("update", "Policy update", update_charts(run)),
        ("data", "Tasks, filters and pool", data_charts(run)),
        ("cost", "Time", cost_charts(run)),
    ]


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


def config_text(run: RunReport) -> str:
    """The config as YAML."""
    return yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=100)


def cost_line(run: RunReport) -> str:
    """All seconds in a sentence."""
    spent = {stage: sum(value or 0.0 for value in run.metric(f"{stage}/seconds")) for stage in STAGES}
    parts = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in spent.items() if seconds)
    return f"{duration(run.seconds)} in all stages together: {parts}. Waiting between attempts is not counted."
