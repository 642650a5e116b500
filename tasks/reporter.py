"""Who is told how a run goes. Nothing here needs Prefect, so that a command line is quick to say what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass

from knowrl_core.report import Meter
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run that this process works on."""

    paths: RunPaths
    keys: tuple[StageKey, ...]
    """Its stages in order."""
    history: Mapping[StageKey, Manifest]
    """Those that are committed; it grows."""


class Reporter:
    """Receives what happens in a run, and ignores it. Texts are plain: whoever renders them escapes them."""

    def opened(self, run: OpenedRun) -> None:
        """A run is open, and about to go on."""

    def message(self, text: str) -> None:
        """Something worth a line."""

    def warning(self, text: str) -> None:
        """Something that the user should look at."""

    def begin(self, key: StageKey) -> None:
        """A stage starts."""

    def advance(self, done: int, total: int, phase: str = "") -> None:
        """The stage has done so much of its work, or of a phase of it."""

    def add_tokens(self, count: int) -> None:
        """So many more tokens were written, scored or trained on."""

    def end(self, key: StageKey, summary: str | None) -> None:
        """A stage is committed (with its summary), or has failed (None)."""


class ForwardingReporter(Reporter):
    """Tells another one; the base for reporters that do something of their own as well."""

    def __init__(self, also: Reporter) -> None:
        self._also = also

    def opened(self, run: OpenedRun) -> None:
        """Pass it on."""
        self._also.opened(run)

    def message(self, text: str) -> None:
        """Pass it on."""
        self._also.message(text)

    def warning(self, text: str) -> None:
        """Pass it on."""
        self._also.warning(text)

    def begin(self, key: StageKey) -> None:
        """Pass it on."""
        self._also.begin(key)

    def advance(self, done: int, total: int, phase: str = "") -> None:
        """Pass it on."""
        self._also.advance(done, total, phase)

    def add_tokens(self, count: int) -> None:
        """Pass it on."""
        self._also.add_tokens(count)

    def end(self, key: StageKey, summary: str | None) -> None:
        """Pass it on."""
        self._also.end(key, summary)


class MeteredReporter(ForwardingReporter):
    """Measures the stage under way."""

    def __init__(self, also: Reporter) -> None:
        super().__init__(also)
        self.meter = Meter()
        """What it measures with."""

    def begin(self, key: StageKey) -> None:
        """Start to measure."""
        self.meter.begin(key)
        super().begin(key)

    def advance(self, done: int, total: int, phase: str = "") -> None:
        """Measure."""
        self.meter.advance(done, total, phase)
        super().advance(done, total, phase)

    def add_tokens(self, count: int) -> None:
        """Count."""
        self.meter.add_tokens(count)
        super().add_tokens(count)

    def end(self, key: StageKey, summary: str | None) -> None:
        """Measure no longer."""
        self.meter.end()
        super().end(key, summary)
