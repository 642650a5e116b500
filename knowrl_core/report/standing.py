"""Where a run stands: what a terminal, another process or Prefect shows of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from knowrl_core.errors import ArtifactError
from knowrl_core.guards import read_firings
from knowrl_core.report.estimate import run_left, stage_left, usual_seconds
from knowrl_core.report.meter import StageProgress
from knowrl_core.report.table import Interval, IterationRow, best_iteration, iteration_rows
from knowrl_core.storage.layout import EVALUATE, RunPaths, StageKey
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.schemas import GuardRecord, MetricRecord
from knowrl_core.storage.tables import read_table


@dataclass(frozen=True, slots=True)
class Standing:
    """A run between two commits."""

    run: str
    """Its name."""
    keys: tuple[StageKey, ...]
    """All its stages in order."""
    history: Mapping[StageKey, Manifest]
    """Those that are committed."""
    rows: Sequence[IterationRow]
    """One an iteration, with intervals."""
    firings: Sequence[GuardRecord]
    """What guards fired."""

    @property
    def iterations(self) -> int:
        """Number of its last iteration."""
        return self.keys[-1].iteration

    @property
    def best(self) -> int | None:
        """The iteration with the best balanced accuracy on the probe."""
        return best_iteration(self.history)

    def fraction(self, progress: StageProgress | None) -> float:
        """Share of the stages that is done, the one under way by its own share."""
        done = sum(key in self.history for key in self.keys)
        running = progress.fraction if progress and progress.key not in self.history else 0.0
        return min(1.0, (done + running) / len(self.keys))

    def stage_left(self, progress: StageProgress) -> float | None:
        """Seconds until the stage under way is done."""
        return stage_left(progress, usual_seconds(progress.key, self.keys, self.history))

    def run_left(self, progress: StageProgress | None) -> float | None:
        """Seconds until the run is done."""
        return run_left(progress, self.keys, self.history)


class Ledger:
    """Makes standings of a growing run; each iteration's tables are read once.

    Args:
        paths: The run.
        keys: Its stages in order.
    """

    def __init__(self, paths: RunPaths, keys: Sequence[StageKey]) -> None:
        self._paths, self._keys = paths, tuple(keys)
        self._read: dict[int, tuple[str, Interval | None, list[GuardRecord]]] = {}

    def standing(self, history: Mapping[StageKey, Manifest]) -> Standing:
        """Where the run stands with these stages.

        Raises:
            ArtifactError: A table of guards is broken.
        """
        history = dict(history)
        found = {}
        for key, manifest in history.items():
            if key.stage != EVALUATE:
                continue
            known = self._read.get(key.iteration)
            if known is None or known[0] != manifest.finished:
                known = (
                    manifest.finished,
                    probe_interval(self._paths, key),
                    read_firings(self._paths, {key: manifest}),
                )
            found[key.iteration] = known
        self._read = found
        intervals = {number: interval for number, (_, interval, _) in found.items() if interval}
        return Standing(
            run=self._paths.name,
            keys=self._keys,
            history=history,
            rows=iteration_rows(history, intervals),
            firings=[firing for _, _, firings in found.values() for firing in firings],
        )


def probe_interval(paths: RunPaths, key: StageKey) -> Interval | None:
    """The 95 % interval of the balanced accuracy on the probe; None without one, or if its table cannot be read.

    It is a help beside a number that stands in the manifest, and no reason to show nothing.
    """
    try:
        rows = read_table(paths.file(key, "extrinsic.parquet"), MetricRecord)
    except ArtifactError:
        return None
    for row in rows:
        if (row.dataset, row.metric, row.predictor) == ("probe", "balanced_accuracy", "model"):
            return None if row.lower is None or row.upper is None else (row.lower, row.upper)
    return None
