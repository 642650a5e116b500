"""The description that stands on a run's page in MLflow."""

import shlex
from collections.abc import Mapping, Sequence

from knowrl_core.guards import Stop, parent_of, read_decision
from knowrl_core.report import IterationRow, best_iteration, iteration_rows, probe_scores
from knowrl_core.report.markdown import code
from knowrl_core.storage.layout import EVALUATE, RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.schemas import GuardRecord
from tasks.summary import COLUMNS, cells

ROWS = 40
"""Iterations shown; MLflow takes 8,000 characters."""

FIRINGS = 10
"""Firings of guards shown."""


def describe(
    paths: RunPaths,
    model: str,
    history: Mapping[StageKey, Manifest],
    stop: Stop | None,
    firings: Sequence[GuardRecord],
) -> str:
    """The description, in Markdown.

    Args:
        paths: The run.
        model: The initial model as the config names it.
        history: Its committed stages.
        stop: Why a guard ended it, if one did.
        firings: All firings of its guards.
    """
    best, scores = best_iteration(history), probe_scores(history)
    lines = [
        f"KnowRL run {code(paths.name)}: {code(model)} learns what it can and cannot do. Iteration 0 "
        "is the untouched model. Each iteration is a child run; the metrics of this run are by iteration.",
        "",
    ]
    if best is not None:
        start = f", iteration 0: {scores[0]:.3f}" if best and 0 in scores else ""
        lines += [f"Best balanced accuracy on the probe: **iteration {best}** ({scores[best]:.3f}{start}).", ""]
    lines += _guards(paths, history, stop, firings)
    rows = iteration_rows(history)
    lines += _table(rows[-ROWS:])
    if len(rows) > ROWS:
        lines.append(f"\nThe last {ROWS} of {len(rows)} iterations are shown.")
    resume = f"knowrl resume {paths.name} --set run.root={shlex.quote(paths.location)}"
    lines += ["", f"Artifacts: {code(paths.shown)}. Go on with it: {code(resume)}"]
    return "\n".join(lines)[:8_000]


def describe_iteration(paths: RunPaths, history: Mapping[StageKey, Manifest], iteration: int) -> str:
    """The description of an iteration's run, in Markdown.

    Args:
        paths: The run.
        history: Its committed stages up to this iteration's evaluation, or more.
        iteration: Which one.
    """
    row = next(row for row in iteration_rows(history) if row.iteration == iteration)
    scores = probe_scores(history)
    what = "the untouched model" if iteration == 0 else f"started from iteration {parent_of(paths, iteration)}"
    if row.warmup:
        what += ", the supervised warm-up"
    lines = [f"Iteration {iteration} of KnowRL run {code(paths.name)}: {what}.", ""]
    if iteration in scores:
        change = f", {scores[iteration] - scores[0]:+.3f} against iteration 0" if iteration and 0 in scores else ""
        lines += [f"Balanced accuracy on the probe **{scores[iteration]:.3f}**{change}.", ""]
    lines += _table([row])
    lines += ["", f"Checkpoint and tables: {code(f'{paths.shown}/iterations/{iteration:03d}')}."]
    return "\n".join(lines)[:8_000]


def _table(rows: Sequence[IterationRow]) -> list[str]:
    lines = ["| " + " | ".join(title for title, _ in COLUMNS) + " |", "| ---: " * len(COLUMNS) + "|"]
    return lines + ["| " + " | ".join(cells(row)) + " |" for row in rows]


def _guards(
    paths: RunPaths, history: Mapping[StageKey, Manifest], stop: Stop | None, firings: Sequence[GuardRecord]
) -> list[str]:
    """Paragraphs on what the guards saw and did."""
    lines = []
    if stop:
        lines += [f"**Stopped by a guard after iteration {stop.iteration}**: {code(stop.reason)}", ""]
    if firings:
        shown = [f"iteration {row.iteration} {code(row.guard)} ({row.action})" for row in firings[-FIRINGS:]]
        earlier = f"{len(firings) - len(shown)} earlier, " if len(firings) > len(shown) else ""
        lines += [f"Guards fired: {earlier}{', '.join(shown)}.", ""]
    evaluated = [key.iteration for key in history if key.stage == EVALUATE]
    rollbacks = read_decision(paths, max(evaluated)).rollbacks if evaluated else 0
    if rollbacks:
        lines += [f"Rollbacks so far: {rollbacks}.", ""]
    return lines
