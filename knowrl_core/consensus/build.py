"""Build the consensus table and the new pool from an iteration's candidates and verdicts."""

from collections import defaultdict
from collections.abc import Sequence

from knowrl_core.config.learning import ConsensusConfig
from knowrl_core.consensus.gates import CLASS_BALANCE, pool_refusal, train_refusal, trimmed_for_balance
from knowrl_core.consensus.pool import grow_pool
from knowrl_core.consensus.rewards import Ballot, RewardRule, majority_reward
from knowrl_core.consensus.vote import tally
from knowrl_core.errors import StageError
from knowrl_core.storage.schemas import Candidate, ConsensusRecord, PoolRecord, VerdictRecord


def build_consensus(
    candidates: Sequence[Candidate],
    verdicts: Sequence[VerdictRecord],
    pool: Sequence[PoolRecord],
    config: ConsensusConfig,
    *,
    iteration: int,
    k: int,
    reward: RewardRule = majority_reward,
) -> tuple[list[ConsensusRecord], list[PoolRecord]]:
    """Vote, reward and select.

    Args:
        candidates: All candidates of the iteration; dropped ones are left out.
        verdicts: ``k`` rows for each kept candidate, in any order.
        pool: The pool after the iteration before, oldest first.
        config: The gates.
        iteration: The iteration.
        k: Verdicts a task.
        reward: Gives the rewards.

    Returns:
        One row a kept candidate, in their order, and the pool after this iteration.

    Raises:
        StageError: Verdicts are missing, too many, or on a task that was not to be judged.
    """
    kept = [candidate for candidate in candidates if candidate.kept]
    rows = verdicts_by_task(verdicts, [candidate.id for candidate in kept], k)
    ballots = []
    for candidate in kept:
        said = tuple(row.verdict for row in rows[candidate.id])
        ballots.append(Ballot(candidate.id, said, tally(said)))
    train = {ballot.task_id: train_refusal(ballot.tally, config) for ballot in ballots}
    if config.balance_train:
        passed = [(b.task_id, b.tally.majority) for b in ballots if train[b.task_id] is None]
        train |= dict.fromkeys(trimmed_for_balance([(i, label) for i, label in passed if label]), CLASS_BALANCE)
    pool_reasons = {b.task_id: pool_refusal(b.tally, c.intended, config) for b, c in zip(ballots, kept, strict=True)}
    applicants = [
        PoolRecord(id=c.id, task=c.task, label=b.tally.majority, iteration=iteration, share=b.tally.share)
        for b, c in zip(ballots, kept, strict=True)
        if pool_reasons[c.id] is None and b.tally.majority is not None
    ]
    new_pool, refused = grow_pool(pool, applicants, config.pool_max_size)
    pool_reasons |= refused
    records = [
        ConsensusRecord(
            task_id=candidate.id,
            task=candidate.task,
            intended=candidate.intended,
            label=ballot.tally.majority,
            share=ballot.tally.share,
            votes_feasible=ballot.tally.feasible,
            votes_infeasible=ballot.tally.infeasible,
            votes_unparseable=ballot.tally.unparseable,
            p_infeasible=mean_probability(rows[candidate.id]),
            agrees=None if ballot.tally.majority is None else ballot.tally.majority == candidate.intended,
            rewards=rewards,
            trained=train[candidate.id] is None,
            train_drop_reason=train[candidate.id],
            pooled=pool_reasons[candidate.id] is None,
            pool_drop_reason=pool_reasons[candidate.id],
        )
        for candidate, ballot, rewards in zip(kept, ballots, reward(ballots), strict=True)
    ]
    return records, new_pool


def verdicts_by_task(
    verdicts: Sequence[VerdictRecord], task_ids: Sequence[str], k: int
) -> dict[str, list[VerdictRecord]]:
    """Group verdict rows by task, in sample order.

    Raises:
        StageError: A task has not exactly the samples 0 to k - 1, or a row's task is unknown; names the task.
    """
    hint = "The verdict table does not belong to these tasks: run the stage that made it again."
    groups: dict[str, list[VerdictRecord]] = defaultdict(list)
    for row in verdicts:
        groups[row.task_id].append(row)
    for task_id in groups.keys() - set(task_ids):
        raise StageError(
            f"task {task_id!r}: got {len(groups[task_id])} verdicts, expected none: unknown task", hint=hint
        )
    for task_id in task_ids:
        rows = sorted(groups[task_id], key=lambda row: row.sample)
        samples = [row.sample for row in rows]
        if samples != list(range(k)):
            raise StageError(
                f"task {task_id!r}: got {len(samples)} verdicts with numbers {samples[:20]}, expected 0 to {k - 1}",
                hint=hint,
            )
        groups[task_id] = rows
    return dict(groups)


def mean_probability(rows: Sequence[VerdictRecord]) -> float | None:
    """Mean exact probability of infeasible over the views asked, each counted once; None in free mode."""
    views = {row.view: row.p_infeasible for row in rows}
    known = [p for p in views.values() if p is not None]
    return sum(known) / len(known) if known and len(known) == len(views) else None
