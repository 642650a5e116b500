"""Numbers as text: the columns of the iterations' table, and one line a stage."""

from collections.abc import Mapping

from knowrl_core.report import IterationRow, iteration_rows
from knowrl_core.report.scale import duration
from knowrl_core.storage.layout import CLASSIFY, CONSENSUS, EVALUATE, GENERATE, UPDATE, StageKey
from knowrl_core.storage.manifest import Manifest

COLUMNS = (
    ("iter", "iteration"),
    ("reward", "reward"),
    ("consensus share", "share"),
    ("intrinsic accuracy", "intrinsic_accuracy"),
    ("probe accuracy", "probe_accuracy"),
    ("balanced accuracy", "balanced_accuracy"),
    ("F1", "f1"),
    ("label balance", "called_feasible"),
    ("time", "seconds"),
)
"""Title and field of each column of the iterations' table. Label balance is the share called feasible on the probe."""

_SHOWN = {
    GENERATE: ("parsed", "kept"),
    CLASSIFY: ("tasks", "verdicts", "label_mass/mean"),
    CONSENSUS: ("mean_reward", "mean_share", "trained", "pool_size"),
    UPDATE: ("steps", "loss/mean", "kl/mean", "grad_norm/mean"),
    EVALUATE: ("frozen/agreement", "probe/accuracy", "probe/balanced_accuracy", "probe/f1", "guards/fired"),
}


def cells(row: IterationRow) -> list[str]:
    """The row as text, in the order of :data:`COLUMNS`."""
    texts = []
    for _, name in COLUMNS:
        value = getattr(row, name)
        if name == "iteration":
            texts.append(f"{value} (warm-up)" if row.warmup else str(value))
        elif name == "seconds":
            texts.append(duration(value))
        else:
            texts.append("-" if value is None else f"{value:.3f}")
    return texts


def titled_rows(history: Mapping[StageKey, Manifest]) -> list[dict[str, str]]:
    """The iterations' table as text by column title."""
    titles = [title for title, _ in COLUMNS]
    return [dict(zip(titles, cells(row), strict=True)) for row in iteration_rows(history)]


def stage_summary(manifest: Manifest) -> str:
    """The most telling metrics of a stage on one line."""
    shown = [name for name in _SHOWN[manifest.stage] if name in manifest.metrics]
    parts = [f"{name} {_number(manifest.metrics[name])}" for name in shown]
    return ", ".join([*parts, duration(manifest.seconds)])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"
