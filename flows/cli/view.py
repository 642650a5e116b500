"""How a run that is going looks on a terminal: where it stands, how long it takes, and reward beside truth.

A reward is never shown without the balanced accuracy on the probe beside it: a verdict that never changes gets full
reward. Texts from a run are put in as they are, never as markup.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, Group, OverflowMethod, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from flows.cli.console import visible
from knowrl_core.report import IterationRow, StageProgress, Standing
from knowrl_core.report.scale import rough_duration
from tasks.summary import counts

MIDDLE: Final = 78
"""Columns from which there is room for speed and intervals as a picture."""
WIDE: Final = 100
_FIRINGS: Final = 3
_BARS: Final = "▁▂▃▄▅▆▇█"
_OTHERS: Final = 12
"""Lines that are no rows of iterations, at most, without firings."""


class Iterations:
    """The part of the view that changes only with a commit; what it looks like is kept, since it is drawn often.

    Args:
        standing: The run.
    """

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._kept: tuple[object, list[Segment]] | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        place = options.max_width, options.encoding, console.size.height
        if self._kept is None or self._kept[0] != place:
            parts = self._parts(options.max_width, console.size.height, plain=options.ascii_only)
            self._kept = place, list(console.render(Group(*parts), options))
        yield from self._kept[1]

    def _parts(self, width: int, height: int, *, plain: bool) -> Iterator[RenderableType]:
        cut: OverflowMethod = "crop" if plain else "ellipsis"
        firings = list(self._standing.firings)[-_FIRINGS:]
        room = max(1, height - _OTHERS - len(firings))
        if self._rows:
            yield self._table(room, width, plain=plain)
            if len(self._rows) > room and width >= MIDDLE and not plain:
                yield from self._trend(width)
        for firing in firings:
            text = f"iteration {firing.iteration}: guard {firing.guard} ({firing.action}): {firing.message}"
            yield Text(visible(text).replace("\n", " "), style="yellow", overflow=cut, no_wrap=True)

    @property
    def _rows(self) -> list[IterationRow]:
        """Those that say something already."""
        return [row for row in self._standing.rows if row.reward is not None or row.balanced_accuracy is not None]

    def _table(self, room: int, width: int, *, plain: bool) -> Table:
        """Reward beside truth, and what guards said."""
        gauge = 0 if width < MIDDLE else 15 if width < WIDE else 41
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, expand=True)
        table.add_column("iter", justify="right", no_wrap=True, vertical="bottom")
        table.add_column("reward", justify="right", no_wrap=True, vertical="bottom")
        table.add_column("truth: balanced\naccuracy [95 %]", no_wrap=True, vertical="bottom", min_width=19)
        if gauge:
            legend = "truth t, rew. r" if plain else "●truth  ○reward"
            table.add_column(
                f"{legend:^{gauge}}\n0{'chance':^{gauge - 2}}1", no_wrap=True, vertical="bottom", width=gauge
            )
        table.add_column("called\nfeasible", justify="right", no_wrap=True, vertical="bottom")
        table.add_column("", no_wrap=True, overflow="crop" if plain else "ellipsis", ratio=1)
        before = None
        lines = []
        for row in self._rows:
            cells = [Text(str(row.iteration)), _reward(row, before), _truth(row, before)]
            if gauge:
                cells.append(_gauge(row, gauge, plain=plain))
            cells += [Text("-" if row.called_feasible is None else f"{row.called_feasible:.2f}"), self._notes(row)]
            lines.append((row.iteration, cells))
            before = row if row.balanced_accuracy is not None else before
        for cells in _chosen(lines, room, self._standing.best):
            table.add_row(*cells)
        return table

    def _notes(self, row: IterationRow) -> Text:
        """What else is to be said of an iteration."""
        words = [("warm-up", "dim")] if row.warmup else []
        words += [("best", "green")] if row.iteration == self._standing.best else []
        fired = dict.fromkeys(item.guard for item in self._standing.firings if item.iteration == row.iteration)
        words += [(visible(guard), "yellow") for guard in fired]
        return Text(", ").join(Text(word, style=style) for word, style in words)

    def _trend(self, width: int) -> Iterator[Text]:
        """Reward and truth of all iterations on one scale, where there is no room for a row each."""
        both = [row for row in self._standing.rows if row.reward is not None and row.balanced_accuracy is not None]
        if not both:
            return
        both = both[-(width - 50) :]
        span = f"{both[0].iteration} to {both[-1].iteration}, from 0 to 1"
        yield Text(f"reward {_spark([row.reward or 0.0 for row in both])}  iterations {span}", style="dim")
        yield Text(f"truth  {_spark([row.balanced_accuracy or 0.0 for row in both])}", style="bold")


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at one moment."""

    standing: Standing
    progress: StageProgress | None
    """The stage under way."""
    note: str = ""
    """Something to be said of it, such as who does it."""
    iterations: Iterations | None = None
    """The iterations of the same standing, where that is drawn often."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cut: OverflowMethod = "crop" if options.ascii_only else "ellipsis"
        yield self._head(cut)
        yield self._bars(options.max_width)
        if self.note:
            yield Text(visible(self.note), style="dim", overflow=cut, no_wrap=True)
        yield self.iterations or Iterations(self.standing)

    def _head(self, cut: OverflowMethod) -> Text:
        standing, now = self.standing, self.progress
        line = Text(no_wrap=True, overflow=cut)
        line.append(visible(standing.run), style="bold")
        key = now.key if now else next((key for key in standing.keys if key not in standing.history), None)
        if key is not None:
            line.append(f"   iteration {key.iteration} of {standing.iterations}")
        return line

    def _bars(self, width: int) -> Table:
        """One line for the run, and one for the stage under way."""
        standing, now = self.standing, self.progress
        committed = sum(key in standing.history for key in standing.keys)
        lines: list[list[RenderableType]] = [
            [
                "run",
                _bar(standing.fraction(now)),
                f"{committed}/{len(standing.keys)} stages",
                "",
                "" if committed == len(standing.keys) else _left(standing.run_left(now)),
            ]
        ]
        if now is not None:
            speed = f"{now.tokens_per_second:,.0f} tokens/s" if now.tokens_per_second else ""
            bar = _bar(now.done / now.total if now.total else None)
            left = _left(standing.stage_left(now)) or f"{rough_duration(now.seconds)} so far"
            lines.append([Text(now.key.stage, style="cyan"), bar, counts(now), speed, left])
        elif committed < len(standing.keys):
            lines.append([Text("...", style="dim"), "", "", "", ""])  # the next one is about to begin
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(no_wrap=True, width=9)
        grid.add_column(ratio=1)
        shown = [0, 1, 2, 3, 4] if width >= MIDDLE else [0, 1, 2, 4]
        for _ in shown[2:]:
            grid.add_column(no_wrap=True, justify="right")
        for line in lines:
            grid.add_row(*(line[column] for column in shown))
        return grid


def _bar(fraction: float | None) -> ProgressBar:
    """A bar; one that moves to and fro where nobody knows how much there is."""
    return ProgressBar(
        total=1.0,
        completed=min(1.0, fraction or 0.0),
        pulse=fraction is None,
        complete_style="cyan",
        finished_style="green",
        pulse_style="cyan",
    )


def _left(seconds: float | None) -> str:
    return f"{rough_duration(seconds)} left" if seconds is not None else ""


def _reward(row: IterationRow, before: IterationRow | None) -> Text:
    known = row.reward is not None and (row.balanced_accuracy is not None or before is not None)
    return Text(f"{row.reward:.3f}" if known else "-")


def _truth(row: IterationRow, before: IterationRow | None) -> Text:
    if row.balanced_accuracy is None:
        if row.reward is None or before is None:
            return Text("-")
        return Text(f"{before.balanced_accuracy:.3f} (iteration {before.iteration})", style="dim")
    text = Text(f"{row.balanced_accuracy:.3f}", style="bold")
    if row.balanced_accuracy_interval:
        low, high = row.balanced_accuracy_interval
        text.append(f" [{low:.2f}, {high:.2f}]", style=_against_chance(row))
    return text


def _against_chance(row: IterationRow) -> str:
    low, high = row.balanced_accuracy_interval or (0.0, 1.0)
    return "not bold green" if low > 0.5 else "not bold red" if high < 0.5 else "not bold"


def _gauge(row: IterationRow, width: int, *, plain: bool) -> Text:
    """Truth with its interval, and the reward, on a line from 0 to 1 with a mark at chance."""
    if row.balanced_accuracy is None:
        return Text("")
    line, chance, point, other = ("-", "|", "t", "r") if plain else ("─", "┊", "●", "○")

    def place(value: float) -> int:
        return round(min(1.0, max(0.0, value)) * (width - 1))

    low, high = row.balanced_accuracy_interval or (row.balanced_accuracy, row.balanced_accuracy)
    marks = [" "] * width
    for position in range(place(low), place(high) + 1):
        marks[position] = line
    marks[place(0.5)] = chance
    if row.reward is not None:
        marks[place(row.reward)] = other
    marks[place(row.balanced_accuracy)] = point
    text = Text("".join(marks), style=_against_chance(row))
    if marks[place(0.5)] == chance:
        text.stylize("dim", place(0.5), place(0.5) + 1)
    if other in marks:
        text.stylize("not dim magenta", marks.index(other), marks.index(other) + 1)
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
