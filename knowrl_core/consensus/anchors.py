"""Anchors: verified seed tasks beside the candidates, rewarded for their known label.

They hold the meaning of the labels while the consensus moves: on them a policy that always says the same earns 1/2, not
1. With share s of n candidates there are round(s / (1 - s) n) of them, so that they make up s of all tasks.
"""

from collections.abc import Collection, Sequence
from typing import Final

from knowrl_core.consensus.ballots import verdicts_by_task
from knowrl_core.consensus.gates import ANCHOR
from knowrl_core.consensus.rewards import agreement, mean_probability
from knowrl_core.consensus.vote import tally
from knowrl_core.errors import StageError
from knowrl_core.labels import LABELS, Label
from knowrl_core.rng import stream
from knowrl_core.seeds.model import SeedTask, normalise
from knowrl_core.storage.schemas import ConsensusRecord, VerdictRecord

PREFIX: Final = "seed/"
"""Before the seed's id in the tables, where anchors stand beside candidates."""


def count_anchors(candidates: int, share: float) -> int:
    """How many anchors make up a share of all tasks; for a share of 1 as many as there are candidates."""
    return candidates if share == 1 else round(share / (1 - share) * candidates)


def draw_anchors(
    seeds: Sequence[SeedTask],
    *,
    share: float,
    candidates: int,
    run_seed: int,
    iteration: int,
    held_out: Collection[str] = (),
) -> list[SeedTask]:
    """Draw the anchors of an iteration from the stream (run seed, iteration, ``anchors``).

    Both labels get the same number; of an odd number the label that gets one more is drawn, too. There are at most as
    many as the rarer label has seeds, twice.

    Args:
        seeds: All seeds.
        share: ``consensus.anchors.share``.
        candidates: Candidates that are judged.
        run_seed: The run's seed.
        iteration: The iteration.
        held_out: Texts that measure, and so are never trained on, should they be seeds as well.

    Returns:
        The anchors in the order of the seeds.
    """
    measured = {normalise(text) for text in held_out}
    usable = [seed for seed in seeds if normalise(seed.task) not in measured]
    by_label: dict[Label, list[SeedTask]] = {label: [s for s in usable if s.label == label] for label in LABELS}
    total = min(count_anchors(candidates, share), 2 * min(map(len, by_label.values())))
    rng = stream(run_seed, iteration, "anchors")
    more = LABELS[int(rng.integers(len(LABELS)))]
    chosen: set[str] = set()
    for label, own in by_label.items():
        size = total // 2 + (total % 2 if label == more else 0)
        chosen.update(own[place].id for place in rng.permutation(len(own))[:size])
    return [seed for seed in usable if seed.id in chosen]


def anchor_tasks(anchors: Sequence[SeedTask]) -> list[tuple[str, str]]:
    """Id and text of anchors, as they are judged."""
    return [(f"{PREFIX}{anchor.id}", anchor.task) for anchor in anchors]


def build_anchors(verdicts: Sequence[VerdictRecord], seeds: Sequence[SeedTask], *, k: int) -> list[ConsensusRecord]:
    """Reward the policy's verdicts on anchors for the verified label.

    No gate applies: the label needs no consensus, and a task on which all verdicts are wrong is one to learn from.
    Anchors never enter the pool, since the seeds are shown beside it anyway.

    Args:
        verdicts: ``k`` rows an anchor.
        seeds: All seeds.
        k: Verdicts a task.

    Returns:
        One row an anchor: ``share`` is the share of verdicts that are right, ``agrees`` whether their majority is.

    Raises:
        StageError: Verdicts are missing or too many, or a task is no seed.
    """
    known = {f"{PREFIX}{seed.id}": seed for seed in seeds}
    ids = list(dict.fromkeys(row.task_id for row in verdicts))
    for task_id in ids:
        if task_id not in known:
            raise StageError(
                f"anchor {task_id!r} is no seed, expected one of {len(known)} seeds",
                hint="The verdict table does not belong to these seeds: run the stage that made it again.",
            )
    return [_record(known[task_id], rows) for task_id, rows in verdicts_by_task(verdicts, ids, k).items()]


def _record(seed: SeedTask, rows: Sequence[VerdictRecord]) -> ConsensusRecord:
    votes = tally(row.verdict for row in rows)
    rewards = agreement([row.verdict for row in rows], seed.label)
    return ConsensusRecord(
        task_id=f"{PREFIX}{seed.id}",
        task=seed.task,
        intended=seed.label,
        label=seed.label,
        share=sum(rewards) / len(rewards),
        evidence=None,
        teacher_feasible=None,
        teacher_infeasible=None,
        votes_feasible=votes.feasible,
        votes_infeasible=votes.infeasible,
        votes_unparseable=votes.unparseable,
        p_infeasible=mean_probability(rows),
        agrees=None if votes.majority is None else votes.majority == seed.label,
        rewards=rewards,
        trained=True,
        train_drop_reason=None,
        pooled=False,
        pool_drop_reason=ANCHOR,
    )
