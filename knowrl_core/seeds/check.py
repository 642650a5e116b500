"""Check anybody's seed files: what is broken, what is repeated, what gives the label away."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowrl_core.labels import LABELS, Label
from knowrl_core.seeds.balance import Metrics, balance
from knowrl_core.seeds.duplicates import MAX_ROWS, near_duplicates
from knowrl_core.seeds.load import Row, repeated, scan
from knowrl_core.seeds.model import RECOMMENDED, normalise
from knowrl_core.seeds.problems import Problem, show, warning


@dataclass(frozen=True, slots=True)
class FileCounts:
    """Valid tasks of one file.

    Attributes:
        file: The file, as the user wrote it.
        tasks: Number of valid tasks.
        labels: Number by label.
        forms: Number by form (``instruction``, ``question``, ``unknown``).
        limits: Number by limit.
    """

    file: str
    tasks: int
    labels: dict[str, int]
    forms: dict[str, int]
    limits: dict[str, int]


@dataclass(frozen=True, slots=True)
class SeedReport:
    """What a check found.

    Attributes:
        files: Counts of each file, in the order given.
        problems: Errors first, then warnings.
        metrics: Figures about the balance of the labels over all files; see ``balance``.
    """

    files: list[FileCounts]
    problems: list[Problem]
    metrics: Metrics = field(default_factory=dict)

    @property
    def errors(self) -> list[Problem]:
        """Problems that keep the files from being used."""
        return [p for p in self.problems if p.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """Problems to look at."""
        return [p for p in self.problems if p.severity == "warning"]

    @property
    def ok(self) -> bool:
        """Whether the files can be used."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {
            "ok": self.ok,
            "files": [
                {"file": f.file, "tasks": f.tasks, "labels": f.labels, "forms": f.forms, "limits": f.limits}
                for f in self.files
            ],
            "metrics": self.metrics,
            "problems": [p.to_dict() for p in self.problems],
        }


def check_files(paths: Sequence[Path], expected_labels: Sequence[Label | None] | None = None) -> SeedReport:
    """Check seed files, alone and against each other.

    Args:
        paths: Files of JSON lines; labels may be mixed within a file.
        expected_labels: For each file the one label that it may hold, ``None`` for any.
    """
    rows: list[Row] = []
    counts: list[FileCounts] = []
    problems: list[Problem] = []
    for path, label in zip(paths, expected_labels or [None] * len(paths), strict=True):
        good, bad = scan(Path(path), label)
        rows += good
        counts.append(_count(path, good))
        problems += bad + _missing_notes(path, good)
    problems += repeated(rows) + _near(rows)
    metrics, unbalanced = balance([row.task for row in rows])
    problems += unbalanced
    problems.sort(key=lambda p: p.severity)  # stable; "error" sorts before "warning"
    return SeedReport(counts, problems, metrics)


def _count(path: Path, rows: list[Row]) -> FileCounts:
    labels = Counter(row.task.label for row in rows)
    forms = Counter(row.task.form or "unknown" for row in rows)
    limits = Counter(row.task.limit or "unknown" for row in rows)
    return FileCounts(
        str(path), len(rows), {label: labels[label] for label in LABELS}, dict(sorted(forms.items())),
        dict(sorted(limits.items())),
    )  # fmt: skip


def _missing_notes(path: Path, rows: list[Row]) -> list[Problem]:
    """Return one warning for each recommended field, not one for each row: most files lack it throughout."""
    problems = []
    for name in RECOMMENDED:
        lines = [row.line for row in rows if not getattr(row.task, name)]
        if lines:
            message = f"field '{name}': missing in {len(lines)} of {len(rows)} tasks, first here"
            problems.append(warning("missing_note", message, path, lines[0]))
    return problems


def _near(rows: list[Row]) -> list[Problem]:
    """Return a warning for each two tasks that say nearly the same; twins of a pair are meant to."""
    problems = []
    if len(rows) > MAX_ROWS:
        message = f"only the first {MAX_ROWS:,} of {len(rows):,} tasks were compared for near-duplicates"
        problems.append(warning("not_compared", message))
        rows = rows[:MAX_ROWS]
    for near in near_duplicates([row.task.task for row in rows]):
        first, second = rows[near.first], rows[near.second]
        twins = first.task.pair and first.task.pair == second.task.pair and first.task.label != second.task.label
        if twins or normalise(first.task.task) == normalise(second.task.task):
            continue
        alike = f"ROUGE-L {near.rouge_l:.2f}, " if near.rouge_l else ""
        alike += f"{near.shared_words:.0%} of their words shared"
        message = f"{show(second.task.task)} is nearly {show(first.task.task)} at {first.file}:{first.line} ({alike})"
        problems.append(warning("near_duplicate", message, second.file, second.line))
    return problems
