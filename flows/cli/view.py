"""How a run that is going looks on a terminal: where it stands, how long it takes, and reward beside truth.

A reward is never shown without the balanced accuracy on the probe beside it: a verdict that never changes gets full
reward. Texts from a run are put in as they are, never as markup.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.style import Style
from rich.table import Table
from rich.text import Text

from flows.cli.console import visible
from knowrl_core.report import IterationRow, StageProgress, Standing
from knowrl_core.storage.layout import GENERATE
from tasks.summary import rough_duration

MIDDLE: Final = 78
"""Columns from which there is room for speed and intervals as a picture."""
WIDE: Final = 100
_FIRINGS: Final = 3
_BARS: Final = "▁▂▃▄▅▆▇█"
_OTHERS: Final = 10
"""Lines that are no rows of iterations, at most, without firings."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at one moment."""

    standing: Standing
    progress: StageProgress | None
    """The stage under way."""
    note: str = ""
    """Something to be said of it, such as who does it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        yield self._head()
        yield self._bars(width)
        if self.note:
            yield Text(visible(self.note), style="dim", overflow="ellipsis", no_wrap=True)
        firings = list(self.standing.firings)[-_FIRINGS:]
        room = max(1, console.size.height - _OTHERS - len(firings))
        if self.standing.rows:
            yield self._iterations(room, width, plain=options.ascii_only)
            if width >= MIDDLE and not options.ascii_only:
                yield from self._trend(width)
        for firing in firings:
            text = f"iteration {firing.iteration}: guard {firing.guard} ({firing.action}): {firing.message}"
            yield Text(visible(text).replace("\n", " "), style="yellow", overflow="ellipsis", no_wrap=True)

    def _head(self) -> Table:
        standing, now = self.standing, self.progress
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(visible(standing.run), style="bold")
        key = now.key if now else next((key for key in standing.keys if key not in standing.history), None)
        if key is not None:
            line.append(f"   iteration {key.iteration} of {standing.iterations}")
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1)
        grid.add_row(line)
        return grid

    def _bars(self, width: int) -> Table:
        standing, now = self.standing, self.progress
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True, width=11)
        grid.add_column(ratio=1)
        for _ in range(3 if width >= MIDDLE else 2):
            grid.add_column(no_wrap=True, justify="right")
        done = sum(key in standing.history for key in standing.keys)
        whole: list[Text | ProgressBar] = [Text("run"), _bar(standing.fraction(now))]
        whole.append(Text(f"{done}/{len(standing.keys)} stages"))
        stage: list[Text | ProgressBar | Spinner] = [Text(""), Text(""), Text("")]
        if now is not None:
            waits = not now.total
            stage = [
                Text(now.key.stage, style="cyan"),
                ProgressBar(total=1.0, completed=now.done / now.total if now.total else 0.0, pulse=waits),
                Text(counts(now)),
            ]
        if width >= MIDDLE:
            whole.append(Text(""))
            speed = now.tokens_per_second if now else None
            stage.append(Text(f"{speed:,.0f} tokens/s" if speed else ""))
        whole.append(_left(standing.run_left(now)))
        stage.append(_left(standing.stage_left(now) if now else None) if now else Text(""))
        grid.add_row(*whole)
        grid.add_row(*stage)
        return grid

    def _iterations(self, room: int, width: int, *, plain: bool) -> Table:
        standing = self.standing
        best = standing.best
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, expand=width < WIDE)
        for name in ("iter", "reward"):
            table.add_column(name, justify="right", no_wrap=True)
        truth = "truth: balanced accuracy" if width >= MIDDLE else "truth"
        table.add_column(truth, no_wrap=True)
        gauge = 0 if width < MIDDLE else 15 if width < WIDE else 31
        if gauge:
            table.add_column(f"0{'chance':^{gauge - 2}}1" if gauge else "", no_wrap=True)
        table.add_column("called\nfeasible" if width < MIDDLE else "called feasible", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
        fired: dict[int, list[str]] = {}
        for firing in standing.firings:
            fired.setdefault(firing.iteration, []).append(visible(firing.guard))
        before = None
        lines = []
        for row in standing.rows:
            notes = Text()
            for word, style in (
                *((("warm-up", "dim"),) if row.warmup else ()),
                *((("best", "green"),) if row.iteration == best else ()),
                *((name, "yellow") for name in fired.get(row.iteration, ())),
            ):
                notes.append(", " if notes else "").append(word, style=style)
            cells = [Text(str(row.iteration)), _reward(row, before), _truth(row, before)]
            if gauge:
                cells.append(_gauge(row, gauge, plain=plain))
            cells += [Text(_share(row.called_feasible)), notes]
            lines.append((row.iteration, cells))
            before = row if row.balanced_accuracy is not None else before
        for cells in _chosen(lines, room, best):
            table.add_row(*cells)
        return table

    def _trend(self, width: int) -> Iterator[Text]:
        """Reward and truth by iteration on one scale, where there is something to compare."""
        both = [row for row in self.standing.rows if row.reward is not None and row.balanced_accuracy is not None]
        if len(both) < 3:
            return
        both = both[-(width - 30) :]
        span = f"{both[0].iteration} to {both[-1].iteration}, from 0 to 1"
        yield Text(f"reward {_spark([row.reward or 0.0 for row in both])}  iterations {span}", style="dim")
        yield Text(f"truth  {_spark([row.balanced_accuracy or 0.0 for row in both])}", style="bold")


def counts(now: StageProgress) -> str:
    """Items done of all, in words."""
    if not now.total:
        return now.phase
    return f"{now.done}/{now.total} {unit(now)}"


def unit(now: StageProgress) -> str:
    """What the stage counts."""
    units = {"reference": "passes, reference", "policy": "passes, policy", "train": "steps", "save": "saved"}
    return units.get(now.phase) or ("calls" if now.key.stage == GENERATE else "prompts")


def _bar(fraction: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=fraction)


def _left(seconds: float | None) -> Text:
    return Text(f"{rough_duration(seconds)} left" if seconds is not None else "")


def _reward(row: IterationRow, before: IterationRow | None) -> Text:
    known = row.reward is not None and (row.balanced_accuracy is not None or before is not None)
    return Text(f"{row.reward:.3f}" if known else "-")


def _truth(row: IterationRow, before: IterationRow | None) -> Text:
    if row.balanced_accuracy is None:
        if row.reward is None or before is None:
            return Text("-")
        return Text(f"{before.balanced_accuracy:.3f} before (iteration {before.iteration})", style="dim")
    text = Text(f"{row.balanced_accuracy:.3f}", style="bold")
    if row.balanced_accuracy_interval:
        low, high = row.balanced_accuracy_interval
        text.append(f" [{low:.2f}, {high:.2f}]", style=_against_chance(row))
    return text


def _against_chance(row: IterationRow) -> str:
    low, high = row.balanced_accuracy_interval or (0.0, 1.0)
    return "not bold green" if low > 0.5 else "not bold red" if high < 0.5 else "not bold"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _gauge(row: IterationRow, width: int, *, plain: bool) -> Text:
    """The interval on a line from 0 to 1, with a mark at chance."""
    if row.balanced_accuracy is None:
        return Text("")
    line, chance, point = ("-", "|", "o") if plain else ("─", "┊", "●")

    def place(value: float) -> int:
        return round(min(1.0, max(0.0, value)) * (width - 1))

    text = Text(" " * width)
    low, high = row.balanced_accuracy_interval or (row.balanced_accuracy, row.balanced_accuracy)
    marks = [" "] * width
    for position in range(place(low), place(high) + 1):
        marks[position] = line
    marks[place(0.5)] = chance
    marks[place(row.balanced_accuracy)] = point
    text = Text("".join(marks), style=_against_chance(row))
    text.stylize(
        Style(dim=True), place(0.5), place(0.5) + 1 if place(0.5) != place(row.balanced_accuracy) else place(0.5)
    )
    return text


def _chosen(lines: Sequence[tuple[int, list[Text]]], room: int, best: int | None) -> Iterator[list[Text]]:
    """As many rows as there is room for: the last ones, and with them the first and the best."""
    if len(lines) <= room:
        yield from (cells for _, cells in lines)
        return
    kept = [line for line in lines if line[0] in {0, best}][: max(0, room - 2)]
    last = [line for line in lines[-(room - len(kept)) :] if line not in kept]
    yield from (cells for _, cells in sorted([*kept, *last], key=lambda line: line[0]))


def _spark(values: Sequence[float]) -> str:
    return "".join(_BARS[min(7, int(max(0.0, min(1.0, value)) * 8))] for value in values)
