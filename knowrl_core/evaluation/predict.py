"""From verdicts to one prediction a task."""

from collections.abc import Sequence

from knowrl_core.consensus.ballots import verdicts_by_task
from knowrl_core.consensus.rewards import mean_probability
from knowrl_core.consensus.vote import Tally, tally
from knowrl_core.evaluation.benchmarks.model import BenchmarkTask
from knowrl_core.labels import FEASIBLE, INFEASIBLE, UNPARSEABLE, Verdict
from knowrl_core.storage.schemas import PredictionRecord, VerdictRecord

EvalTask = BenchmarkTask
"""A task with the label that predictions are compared with; of a generated set, the label it was meant to have."""


def predict(
    dataset: str, tasks: Sequence[EvalTask], verdicts: Sequence[VerdictRecord], *, k: int
) -> list[PredictionRecord]:
    """Predict a label for each task.

    - With exact probabilities (constrained mode) the score is their mean over the views asked, and the label is
      infeasible above one half, feasible below.
    - Without them (free mode) the score is the share of infeasible among the votes, and the label is the majority.

    At exactly one half, or without a vote, there is no decision: the prediction is ``unparseable``, which every metric
    counts as wrong.

    Args:
        dataset: Name of the set.
        tasks: Its tasks.
        verdicts: ``k`` rows a task, in any order.
        k: Verdicts a task.

    Raises:
        StageError: Verdicts are missing, too many, or on an unknown task.
    """
    rows = verdicts_by_task(verdicts, [task.id for task in tasks], k)
    records = []
    for task in tasks:
        own = rows[task.id]
        votes = tally(row.verdict for row in own)
        exact = mean_probability(own)
        records.append(
            PredictionRecord(
                dataset=dataset,
                task_id=task.id,
                task=task.task,
                label=task.label,
                predicted=decide(votes, exact),
                score=votes.infeasible_share if exact is None else exact,
                votes_feasible=votes.feasible,
                votes_infeasible=votes.infeasible,
                votes_unparseable=votes.unparseable,
                prompt_sha256=own[0].prompt_sha256,
                policy=own[0].policy,
                category=task.category,
                source=task.source,
                pair=task.pair,
            )
        )
    return records


def decide(votes: Tally, exact: float | None) -> Verdict:
    """The predicted label; see :func:`predict`."""
    if exact is None:
        return votes.majority or UNPARSEABLE
    if exact == 0.5:
        return UNPARSEABLE
    return INFEASIBLE if exact > 0.5 else FEASIBLE
