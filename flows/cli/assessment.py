"""How measurements are shown: a bar with throughput, tables, JSON."""

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from rich import box
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from flows.cli.console import LineReporter, err, is_live, out, printable
from knowrl_core.evaluation import Assessment, Benchmark
from knowrl_core.evaluation.controls import CONTROLS
from knowrl_core.storage.schemas import MetricRecord


class _Speed(ProgressColumn):
    """Prompts a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} prompts/s")


class JudgingBar(LineReporter):
    """A reporter that shows one bar with throughput; without a terminal, a line now and then.

    Args:
        title: What is being done.
        every: Seconds between the lines.
    """

    def __init__(self, title: str, every: float = 15.0) -> None:
        super().__init__()
        self._live = is_live(err, sys.stderr)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not self._live,
        )
        self._every, self._started, self._said = every, time.monotonic(), time.monotonic()
        self._whole = self._progress.add_task(printable(title), total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, done: int, total: int, phase: str = "") -> None:  # noqa: ARG002 - there is one phase
        """Move the bar."""
        self._progress.update(self._whole, completed=done, total=total)
        now = time.monotonic()
        if not self._live and now - self._said >= self._every:
            self._said = now
            self.message(f"{done} of {total} prompts, {done / (now - self._started):.1f} a second")


def show(assessment: Assessment) -> None:
    """Print what was measured on one set."""
    counts = ", ".join(f"{count} {label}" for label, count in sorted(assessment.labels.items()))
    part = f" of {assessment.available}" if assessment.available > assessment.size else ""
    title = f"{assessment.dataset}: {assessment.size}{part} tasks ({counts})"
    table = Table(title=printable(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for name in ("model", "[95 % interval]", "always\ninfeasible", "always\nfeasible", "TF-IDF"):
        table.add_column(printable(name), justify="right", no_wrap=True, vertical="bottom")
    controls = {(row.predictor, row.metric): row for row in assessment.controls}
    rows = assessment.metrics or [
        dataclasses.replace(row, value=None, lower=None, upper=None) for row in assessment.controls
    ]
    for row in {row.metric: row for row in rows}.values():
        cells = [
            _number(controls[name, row.metric].value, 3) if (name, row.metric) in controls else "-" for name in CONTROLS
        ]
        table.add_row(row.metric, _number(row.value), printable(_interval(row)), *cells)
    out.print(table)
    if assessment.comparison is not None:
        out.print(printable(_comparison(assessment)), soft_wrap=True)
    for reason, count in assessment.left_out.items():
        out.print(printable(f"left out: {count} rows, since {reason}"), soft_wrap=True)
    if assessment.seconds:
        out.print(f"{assessment.seconds:.1f} s, {assessment.size / assessment.seconds:.1f} tasks/s\n")


def as_json(assessment: Assessment) -> dict[str, Any]:
    """What was measured on one set, for scripts."""
    by_predictor: dict[str, dict[str, Any]] = {}
    for row in assessment.records:
        values = {"value": row.value, "lower": row.lower, "upper": row.upper, "n": row.n}
        by_predictor.setdefault(row.predictor, {})[row.metric] = values
    return {
        "benchmark": assessment.dataset,
        "tasks": assessment.size,
        "available": assessment.available,
        "labels": dict(assessment.labels),
        "left_out": dict(assessment.left_out),
        "metrics": by_predictor.pop("model", {}),
        "controls": by_predictor,
        "comparison": dataclasses.asdict(assessment.comparison) if assessment.comparison else None,
        "seconds": assessment.seconds,
    }


def describe(benchmarks: Sequence[Benchmark]) -> list[dict[str, Any]]:
    """The benchmarks as plain values."""
    return [
        {
            "name": item.name,
            "title": item.title,
            "tasks": item.size,
            "truth": item.truth,
            "licence": item.licence,
            "citation": item.citation,
            "url": item.url,
            "files": list(item.files),
            "hub": item.hub or None,
            "builtin": item.builtin,
        }
        for item in benchmarks
    ]


def show_benchmarks(benchmarks: Sequence[Benchmark]) -> None:
    """Print the benchmarks with licence and citation."""
    for item in benchmarks:
        out.print(f"[bold]{item.name}[/]  {printable(item.title)}", soft_wrap=True)
        place = "built in" if item.builtin else f"--path FILE or a folder with {', '.join(item.files)}"
        hub = f", or without --path from the Hub ({item.hub})" if item.hub else ""
        for key, value in (
            ("tasks", item.size), ("truth", item.truth), ("licence", item.licence), ("cite", item.citation),
            ("from", item.url), ("read", place + hub),
        ):  # fmt: skip
            out.print(printable(f"    {key:<8} {value}"), soft_wrap=True)


def _comparison(assessment: Assessment) -> str:
    found = assessment.comparison
    assert found is not None  # noqa: S101 - the caller asked
    difference = _difference(found.f1_difference, found.lower, found.upper)
    more = "".join(
        f", {row.metric} {_number(row.baseline)} {_difference(row.difference, row.lower, row.upper)}"
        for row in found.more
    )
    return (
        f"against the baseline (F1 {_number(found.f1_baseline)}): F1 difference {difference}{more}; only the model is "
        f"right on {found.only_model} tasks, only the baseline on {found.only_baseline} (exact McNemar p = "
        f"{found.mcnemar_p:.3g})"
    )


def _difference(value: float | None, lower: float | None, upper: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:+.4f}" + ("" if lower is None or upper is None else f" [{lower:+.4f}, {upper:+.4f}]")


def _interval(row: MetricRecord) -> str:
    return "" if row.lower is None or row.upper is None else f"[{row.lower:.3f}, {row.upper:.3f}]"


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
