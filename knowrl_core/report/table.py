"""The numbers of each iteration, side by side, from the manifests."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from knowrl_core.storage.layout import CONSENSUS, EVALUATE, GENERATE, STAGES, UPDATE, StageKey
from knowrl_core.storage.manifest import Manifest

Interval = tuple[float, float]
"""Lower and upper end of a 95 % bootstrap interval."""


@dataclass(frozen=True, slots=True)
class IterationRow:
    """One line of the final table; None where a stage is not committed or the metric is undefined."""

    iteration: int
    reward: float | None
    """Mean reward of the verdicts trained on."""
    share: float | None
    """Mean consensus share of the fresh tasks."""
    intrinsic_accuracy: float | None
    """Agreement of intended and classified label on the frozen set."""
    probe_accuracy: float | None
    balanced_accuracy: float | None
    f1: float | None
    """F1 of infeasible on the probe."""
    called_feasible: float | None
    """Label balance: share of probe tasks called feasible."""
    seconds: float
    """Time of all committed stages."""
    warmup: bool = False
    """It is the supervised warm-up."""
    balanced_accuracy_interval: Interval | None = None
    """Of the balanced accuracy, where it was read."""


def iteration_rows(
    history: Mapping[StageKey, Manifest], intervals: Mapping[int, Interval] = MappingProxyType({})
) -> list[IterationRow]:
    """One row for every iteration that has a committed stage.

    Args:
        history: The committed stages.
        intervals: Of the balanced accuracy on the probe, by iteration.
    """
    rows = []
    for iteration in sorted({key.iteration for key in history}):
        stages = {stage: history.get(StageKey(iteration, stage)) for stage in STAGES}
        consensus = _metrics(stages[CONSENSUS])
        evaluation = _metrics(stages[EVALUATE])
        rows.append(
            IterationRow(
                iteration=iteration,
                reward=_metrics(stages[UPDATE]).get("reward/mean"),
                share=consensus.get("mean_share", evaluation.get("fresh/mean_share")),
                intrinsic_accuracy=evaluation.get("frozen/agreement"),
                probe_accuracy=evaluation.get("probe/accuracy"),
                balanced_accuracy=evaluation.get("probe/balanced_accuracy"),
                f1=evaluation.get("probe/f1"),
                called_feasible=evaluation.get("probe/called_feasible"),
                seconds=sum(manifest.seconds for manifest in stages.values() if manifest),
                warmup=iteration > 0 and stages[GENERATE] is None,
                balanced_accuracy_interval=intervals.get(iteration),
            )
        )
    return rows


def best_iteration(history: Mapping[StageKey, Manifest]) -> int | None:
    """The iteration with the best balanced accuracy on the probe, the earliest of equals."""
    scores = probe_scores(history)
    return max(scores, key=lambda iteration: (scores[iteration], -iteration)) if scores else None


def probe_scores(history: Mapping[StageKey, Manifest]) -> dict[int, float]:
    """Balanced accuracy on the probe for each evaluated iteration."""
    return {
        key.iteration: manifest.metrics["probe/balanced_accuracy"]
        for key, manifest in history.items()
        if key.stage == EVALUATE and "probe/balanced_accuracy" in manifest.metrics
    }


def _metrics(manifest: Manifest | None) -> dict[str, float]:
    return manifest.metrics if manifest else {}
