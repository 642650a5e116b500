"""What changed from iteration 0 to another one, task by task: mended, broken, and which kinds of task are which."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from knowrl_core.evaluation.compare import difference_intervals, mcnemar
from knowrl_core.evaluation.outcomes import outcomes_of
from knowrl_core.evaluation.resampled import ResampledMetrics
from knowrl_core.labels import LABELS, UNPARSEABLE
from knowrl_core.report.read import StoredRun
from knowrl_core.report.scores import SetScores
from knowrl_core.storage.layout import EVALUATE, PREDICTIONS_TABLE, StageKey
from knowrl_core.storage.schemas import PredictionRecord

EXAMPLES: Final = 8
"""Tasks shown of each set, mended and broken each."""
KINDS: Final = 20
"""Kinds shown of each set."""
TEXT: Final = 600
"""Characters shown of a task."""

Confusion = dict[str, dict[str, int]]
"""Tasks by truth, then by what the model said."""


@dataclass(frozen=True, slots=True)
class Example:
    """A task whose verdict changed.

    Attributes:
        id: Its id in the set.
        task: Its text, cut to ``TEXT`` characters.
        cut: Characters that were cut off.
        kind: Kind of limit or topic, in the set's words.
        truth: Its label.
        before: What iteration 0 said.
        after: What the other iteration said.
        score_before: Probability or vote share of infeasible at iteration 0.
        score_after: The same later.
    """

    id: str
    task: str
    cut: int
    kind: str
    truth: str
    before: str
    after: str
    score_before: float | None
    score_after: float | None


@dataclass(frozen=True, slots=True)
class Kind:
    """Tasks of one kind, of one label.

    Attributes:
        name: The kind in the set's own words.
        truth: Label of these tasks.
        tasks: How many there are.
        right_before: Called right at iteration 0.
        right_after: Called right later.
    """

    name: str
    truth: str
    tasks: int
    right_before: int
    right_after: int


@dataclass(frozen=True, slots=True)
class SetFlips:
    """A labelled set at iteration 0 and at another one.

    Attributes:
        dataset: Name of the set.
        tasks: Tasks that both were asked.
        mended: Wrong before, right after.
        broken: Right before, wrong after.
        p: p-value of the exact McNemar test.
        metric: What ``difference`` is of.
        difference: After minus before; None where undefined.
        lower: Lower end of its 95 % interval (paired bootstrap).
        upper: Upper end of it.
        mended_examples: Tasks with the largest change of score.
        broken_examples: The same of those that were right before.
        before: Confusion at iteration 0.
        after: Confusion later.
        kinds: By kind and label, kinds with most tasks first.
        kinds_left_out: Kinds that are not shown.
    """

    dataset: str
    tasks: int
    mended: int
    broken: int
    p: float
    metric: str
    difference: float | None
    lower: float | None
    upper: float | None
    mended_examples: list[Example]
    broken_examples: list[Example]
    before: Confusion
    after: Confusion
    kinds: list[Kind]
    kinds_left_out: int


Pair = tuple[PredictionRecord, PredictionRecord]


def set_flips(run: StoredRun, sets: Sequence[SetScores], at: int) -> list[SetFlips]:
    """Compare an iteration with iteration 0 on every set that both were asked.

    Args:
        run: The run.
        sets: Its labelled sets.
        at: The iteration.
    """
    names = [item.name for item in sets]
    before, after = _predictions(run, 0, names), _predictions(run, at, names)
    config: Mapping[str, Any] = run.file.config
    resamples = int(config.get("evaluation", {}).get("bootstrap", 0))
    found = []
    for item in sets:
        later = {row.task_id: row for row in after.get(item.name, ())}
        pairs = [(row, later[row.task_id]) for row in before.get(item.name, ()) if row.task_id in later]
        pairs = [(old, new) for old, new in pairs if old.label == new.label]
        if pairs:
            found.append(_compare(item.name, item.headline, pairs, resamples=resamples, seed=run.file.seed))
    return found


def _predictions(run: StoredRun, iteration: int, names: Sequence[str]) -> dict[str, list[PredictionRecord]]:
    found: dict[str, list[PredictionRecord]] = {}
    for row in run.table(StageKey(iteration, EVALUATE), PREDICTIONS_TABLE, PredictionRecord):
        if row.dataset in names:
            found.setdefault(row.dataset, []).append(row)
    return found


def _compare(name: str, metric: str, pairs: Sequence[Pair], *, resamples: int, seed: int) -> SetFlips:
    mended = [pair for pair in pairs if not _right(pair[0]) and _right(pair[1])]
    broken = [pair for pair in pairs if _right(pair[0]) and not _right(pair[1])]
    old, new = outcomes_of(pair[0] for pair in pairs), outcomes_of(pair[1] for pair in pairs)
    once = np.ones((1, len(pairs)))
    difference = float((ResampledMetrics(new)(once)[metric] - ResampledMetrics(old)(once)[metric])[0])
    ends = difference_intervals(new, old, [metric], resamples=resamples, seed=seed, name=name)
    lower, upper = ends[metric]
    kinds, left_out = _kinds(pairs)
    return SetFlips(
        dataset=name,
        tasks=len(pairs),
        mended=len(mended),
        broken=len(broken),
        p=mcnemar(len(mended), len(broken)),
        metric=metric,
        difference=None if np.isnan(difference) else difference,
        lower=lower,
        upper=upper,
        mended_examples=_examples(mended),
        broken_examples=_examples(broken),
        before=_confusion(pair[0] for pair in pairs),
        after=_confusion(pair[1] for pair in pairs),
        kinds=kinds,
        kinds_left_out=left_out,
    )


def _right(row: PredictionRecord) -> bool:
    return row.predicted == row.label


def _examples(pairs: Sequence[Pair]) -> list[Example]:
    def change(pair: Pair) -> float:
        old, new = pair[0].score, pair[1].score
        return abs(new - old) if old is not None and new is not None else 0.0

    chosen = sorted(pairs, key=lambda pair: (-change(pair), pair[0].task_id))[:EXAMPLES]
    return [
        Example(
            id=old.task_id,
            task=old.task[:TEXT],
            cut=max(0, len(old.task) - TEXT),
            kind=old.category,
            truth=old.label,
            before=old.predicted,
            after=new.predicted,
            score_before=old.score,
            score_after=new.score,
        )
        for old, new in chosen
    ]


def _confusion(rows: Iterable[PredictionRecord]) -> Confusion:
    table: Confusion = {truth: dict.fromkeys((*LABELS, UNPARSEABLE), 0) for truth in LABELS}
    for row in rows:
        table[row.label][row.predicted] += 1
    return table


def _kinds(pairs: Sequence[Pair]) -> tuple[list[Kind], int]:
    groups: dict[str, dict[str, list[Pair]]] = {}
    for pair in pairs:
        if pair[0].category:
            groups.setdefault(pair[0].category, {}).setdefault(pair[0].label, []).append(pair)
    order = sorted(groups, key=lambda name: (-sum(map(len, groups[name].values())), name))
    kinds = [
        Kind(name, truth, len(own), sum(_right(old) for old, _ in own), sum(_right(new) for _, new in own))
        for name in order[:KINDS]
        for truth in LABELS
        if (own := groups[name].get(truth))
    ]
    return kinds, max(0, len(order) - KINDS)
