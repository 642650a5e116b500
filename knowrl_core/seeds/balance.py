"""Measure whether the two labels differ in form: number, length, opening words, wording."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import stats

from knowrl_core.labels import FEASIBLE, INFEASIBLE
from knowrl_core.seeds.duplicates import words
from knowrl_core.seeds.model import SeedTask
from knowrl_core.seeds.problems import Problem, warning
from knowrl_core.seeds.surface import KINDS, surface_score

MIN_EACH: Final = 20
"""Tasks a label from which balance is measured; with fewer, chance alone looks like imbalance."""

MAX_SCORED: Final = 5_000
"""Tasks that the surface classifiers see, taken evenly from all; more would add time and no insight."""

LABEL_SHARE_BAR: Final = 0.6
LENGTH_DIFFERENCE_BAR: Final = 0.15
LENGTH_EFFECT_BAR: Final = 0.2
FORM_DIFFERENCE_BAR: Final = 0.15
SIGNIFICANCE: Final = 0.01
SURFACE_BAR: Final = 0.65

Metrics = dict[str, float]


def balance(tasks: Sequence[SeedTask]) -> tuple[Metrics, list[Problem]]:
    """Return figures about the difference of the labels in form, and a warning for each that is too large."""
    by_label = {
        FEASIBLE: [t for t in tasks if t.label == FEASIBLE],
        INFEASIBLE: [t for t in tasks if t.label == INFEASIBLE],
    }
    metrics: Metrics = {f"{label}_share": len(part) / max(len(tasks), 1) for label, part in by_label.items()}
    problems: list[Problem] = []
    for label, share in ((label, metrics[f"{label}_share"]) for label in by_label):
        if share > LABEL_SHARE_BAR:
            message = f"{share:.0%} of the tasks are {label}, expected at most {LABEL_SHARE_BAR:.0%}"
            problems.append(warning("label_imbalance", message))
    yes, no = by_label[FEASIBLE], by_label[INFEASIBLE]
    if min(len(yes), len(no)) >= MIN_EACH:
        for measure in (_length, _form, _openings, _surface):
            measure(yes, no, metrics, problems)
    elif yes and no:
        message = f"fewer than {MIN_EACH} tasks of a label: length, form and wording were not compared"
        problems.append(warning("too_few", message))
    return metrics, problems


def _length(yes: list[SeedTask], no: list[SeedTask], metrics: Metrics, problems: list[Problem]) -> None:
    sizes = [np.array([len(words(t.task)) for t in part]) for part in (yes, no)]
    means = [float(size.mean()) for size in sizes]
    test = stats.mannwhitneyu(sizes[0], sizes[1])
    # Rank-biserial correlation: P(feasible is longer) - P(infeasible is longer).
    effect = float(2 * test.statistic / (len(yes) * len(no)) - 1)
    metrics |= {"feasible_words": means[0], "infeasible_words": means[1]}
    metrics |= {"length_effect": effect, "length_p": float(test.pvalue)}
    apart = max(means) / min(means) - 1 > LENGTH_DIFFERENCE_BAR
    ranked = abs(effect) > LENGTH_EFFECT_BAR and test.pvalue < SIGNIFICANCE
    if apart or ranked:
        message = (
            f"feasible tasks have {means[0]:.1f} words on average, infeasible ones {means[1]:.1f} "
            f"(rank-biserial effect {effect:+.2f}, Mann-Whitney p = {test.pvalue:.2g}), "
            f"expected means within {LENGTH_DIFFERENCE_BAR:.0%}"
        )
        problems.append(warning("length_imbalance", message))


def _form(yes: list[SeedTask], no: list[SeedTask], metrics: Metrics, problems: list[Problem]) -> None:
    shares = [float(np.mean([_is_question(t) for t in part])) for part in (yes, no)]
    metrics |= {"feasible_questions": shares[0], "infeasible_questions": shares[1]}
    if abs(shares[0] - shares[1]) > FORM_DIFFERENCE_BAR:
        message = f"{shares[0]:.0%} of the feasible tasks are questions and {shares[1]:.0%} of the infeasible ones"
        problems.append(warning("form_imbalance", message))


def _is_question(task: SeedTask) -> bool:
    return task.form == "question" if task.form else task.task.rstrip().endswith("?")


def _openings(yes: list[SeedTask], no: list[SeedTask], metrics: Metrics, problems: list[Problem]) -> None:
    used = [Counter(words(t.task)[0] for t in part) for part in (yes, no)]
    worst = 0.0
    for word in sorted(used[0] | used[1]):
        counts = used[0][word], used[1][word]
        shares = counts[0] / len(yes), counts[1] / len(no)
        worst = max(worst, abs(shares[0] - shares[1]))
        table = [[counts[0], len(yes) - counts[0]], [counts[1], len(no) - counts[1]]]
        if stats.fisher_exact(table).pvalue < SIGNIFICANCE:
            message = f"{shares[0]:.0%} of the feasible and {shares[1]:.0%} of the infeasible tasks open with '{word}'"
            problems.append(warning("opening_imbalance", message))
    metrics["opening_max_difference"] = worst


def _surface(yes: list[SeedTask], no: list[SeedTask], metrics: Metrics, problems: list[Problem]) -> None:
    tasks = yes + no
    tasks = tasks[:: -(-len(tasks) // MAX_SCORED)]
    groups = [f"pair {t.pair}" if t.pair else f"id {t.id} {place}" for place, t in enumerate(tasks)]
    for kind, sees in KINDS.items():
        score = surface_score(kind, [t.task for t in tasks], [t.label for t in tasks], groups)
        metrics[f"surface_{kind}"] = score
        if score > SURFACE_BAR:
            message = (
                f"a classifier that sees only {sees} finds the label with a balanced accuracy of {score:.2f}, "
                f"expected at most {SURFACE_BAR} (0.5 is chance)"
            )
            problems.append(warning(f"surface_{kind}", message))
