"""Numbers as text: the columns of the iterations' table, and one line a stage."""

from collections.abc import Mapping

from knowrl_core.report import IterationRow, StageProgress, iteration_rows, probe_scores
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

REWARD = "mean_reward"
_SHOWN = {
    GENERATE: ("parsed", "kept"),
    CLASSIFY: ("tasks", "verdicts", "label_mass/mean"),
    CONSENSUS: (REWARD, "mean_share", "trained", "pool_size"),
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
        elif name == "reward" and row.probe_accuracy is None and row.balanced_accuracy is None:
            texts.append("-")  # no reward without the truth beside it, which is measured next
        else:
            texts.append("-" if value is None else f"{value:.3f}")
    return texts


def titled_rows(history: Mapping[StageKey, Manifest]) -> list[dict[str, str]]:
    """The iterations' table as text by column title."""
    titles = [title for title, _ in COLUMNS]
    return [dict(zip(titles, cells(row), strict=True)) for row in iteration_rows(history)]


def stage_summary(manifest: Manifest, history: Mapping[StageKey, Manifest]) -> str:
    """The most telling metrics of a stage, and its time, on one line.

    Args:
        manifest: The stage.
        history: The run's stages so far.
    """
    return ", ".join([*key_metrics(manifest, history), duration(manifest.seconds)])


def key_metrics(manifest: Manifest, history: Mapping[StageKey, Manifest]) -> list[str]:
    """The most telling metrics of a stage. A reward has the truth beside it: what the last evaluation before it found.

    Args:
        manifest: The stage.
        history: The run's stages.
    """
    shown = [name for name in _SHOWN[manifest.stage] if name in manifest.metrics]
    parts = [f"{name} {_number(manifest.metrics[name])}" for name in shown]
    if REWARD in shown:
        scores = {number: score for number, score in probe_scores(history).items() if number < manifest.iteration}
        truth = f"{_number(scores[max(scores)])} in iteration {max(scores)}" if scores else "not known yet"
        place = shown.index(REWARD)
        parts[place] += f" (truth: balanced_accuracy {truth})"
    return parts


def counts(now: StageProgress) -> str:
    """Items done of all, in words; empty before there are any."""
    if not now.total:
        return ""
    if now.phase == "save":
        return "saving"
    units = {"reference": "passes of the reference", "policy": "passes", "train": "steps"}
    unit = units.get(now.phase) or ("calls" if now.key.stage == GENERATE else "prompts")
    return f"{now.done}/{now.total} {unit}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"
