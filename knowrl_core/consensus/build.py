"""Build the consensus table and the new pool from an iteration's candidates and verdicts."""

from collections.abc import Sequence
from fractions import Fraction

from knowrl_core.config.learning import ConsensusConfig
from knowrl_core.consensus.ballots import verdicts_by_task
from knowrl_core.consensus.gates import CLASS_BALANCE, pool_refusal, train_refusal, trimmed_for_balance
from knowrl_core.consensus.pool import grow_pool
from knowrl_core.consensus.rewards import (
    RULES,
    Decision,
    agreement,
    decide,
    evidence_of,
    joint_evidence,
    mean_probability,
)
from knowrl_core.consensus.vote import Tally, tally
from knowrl_core.storage.schemas import Candidate, ConsensusRecord, PoolRecord, VerdictRecord


def build_consensus(
    candidates: Sequence[Candidate],
    verdicts: Sequence[VerdictRecord],
    pool: Sequence[PoolRecord],
    config: ConsensusConfig,
    *,
    iteration: int,
    k: int,
    teacher: Sequence[VerdictRecord] | None = None,
) -> tuple[list[ConsensusRecord], list[PoolRecord]]:
    """Find labels, reward and select.

    Args:
        candidates: All candidates of the iteration; dropped ones are left out.
        verdicts: The policy's, which are rewarded: ``k`` rows for each kept candidate, in any order.
        pool: The pool that the iteration starts from, oldest first.
        config: Label rule and gates.
        iteration: The iteration.
        k: Verdicts a task.
        teacher: Verdicts that the labels come from, as many, under ``votes: joint`` together with the policy's own;
            None takes those alone.

    Returns:
        One row a kept candidate, in their order, and the pool after this iteration.

    Raises:
        StageError: Verdicts are missing, too many, or on a task that was not to be judged.
    """
    kept = [candidate for candidate in candidates if candidate.kept]
    ids = [candidate.id for candidate in kept]
    rows = verdicts_by_task(verdicts, ids, k)
    judges = rows if teacher is None else verdicts_by_task(teacher, ids, k)
    own, judged = _tallies(rows, ids), _tallies(judges, ids)
    evidence = [evidence_of(judges[task_id], config.reward.evidence) for task_id in ids]
    parseable = [_parseable(votes, k) for votes in judged]
    if config.reward.votes == "joint":
        evidence = joint_evidence([evidence_of(rows[task_id], config.reward.evidence) for task_id in ids], evidence)
        parseable = [share * _parseable(votes, k) for share, votes in zip(parseable, own, strict=True)]
    decisions = decide(evidence, parseable, RULES[config.reward.rule])
    train = _train_reasons(kept, decisions, config)
    pool_reasons = {c.id: pool_refusal(d, c.intended, config) for c, d in zip(kept, decisions, strict=True)}
    applicants = [
        PoolRecord(id=c.id, task=c.task, label=d.label, iteration=iteration, share=d.share)
        for c, d in zip(kept, decisions, strict=True)
        if pool_reasons[c.id] is None and d.label is not None
    ]
    new_pool, refused = grow_pool(pool, applicants, config.pool_max_size)
    pool_reasons |= refused
    records = [
        ConsensusRecord(
            task_id=candidate.id,
            task=candidate.task,
            intended=candidate.intended,
            label=decision.label,
            share=decision.share,
            evidence=None if found is None else float(found),
            teacher_feasible=None if teacher is None else by.feasible,
            teacher_infeasible=None if teacher is None else by.infeasible,
            votes_feasible=votes.feasible,
            votes_infeasible=votes.infeasible,
            votes_unparseable=votes.unparseable,
            p_infeasible=mean_probability(rows[candidate.id]),
            agrees=None if decision.label is None else decision.label == candidate.intended,
            rewards=agreement([row.verdict for row in rows[candidate.id]], decision.label),
            trained=train[candidate.id] is None,
            train_drop_reason=train[candidate.id],
            pooled=pool_reasons[candidate.id] is None,
            pool_drop_reason=pool_reasons[candidate.id],
        )
        for candidate, decision, found, votes, by in zip(kept, decisions, evidence, own, judged, strict=True)
    ]
    return records, new_pool


def _tallies(rows: dict[str, list[VerdictRecord]], ids: Sequence[str]) -> list[Tally]:
    return [tally(row.verdict for row in rows[task_id]) for task_id in ids]


def _parseable(votes: Tally, k: int) -> Fraction:
    return Fraction(votes.feasible + votes.infeasible, k)


def _train_reasons(
    kept: Sequence[Candidate], decisions: Sequence[Decision], config: ConsensusConfig
) -> dict[str, str | None]:
    reasons = {c.id: train_refusal(d, c.intended, config) for c, d in zip(kept, decisions, strict=True)}
    if config.balance_train:
        passed = [(c.id, d.label) for c, d in zip(kept, decisions, strict=True) if d.label and reasons[c.id] is None]
        reasons |= dict.fromkeys(trimmed_for_balance(passed), CLASS_BALANCE)
    return reasons
