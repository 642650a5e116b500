"""Every Parquet file of a run: one record class a file, one column a field, described where it is declared.

The pyarrow schema is derived from the record, so that code and files cannot drift apart. Texts are stored as they
came from the model; whoever shows them escapes them.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import pyarrow as pa

SCHEMA_VERSION: Final = 2
"""Raised whenever a column changes; readers refuse other versions, and it is part of every stage signature."""


class Record(Protocol):
    """A dataclass whose fields were declared with :func:`column`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def column(kind: pa.DataType, description: str, *, null: bool = False, default: Any = dataclasses.MISSING) -> Any:
    """Declare a column: its Arrow type, what it holds, whether it may be null, and what a record has without it."""
    return dataclasses.field(default=default, metadata={"type": kind, "doc": description, "null": null})


def schema_of(record: type[Record]) -> pa.Schema:
    """The pyarrow schema of a record class; descriptions stand in the field metadata."""
    return pa.schema(
        [
            pa.field(f.name, f.metadata["type"], f.metadata["null"], metadata={"description": f.metadata["doc"]})
            for f in dataclasses.fields(record)
        ],
        metadata={"knowrl.record": record.__name__, "knowrl.schema_version": str(SCHEMA_VERSION)},
    )


_S, _I, _F, _B = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_LABEL = "feasible or infeasible"
_POLICY = "policy that produced it: model name, or iteration of its checkpoint, and sha256 of the weights"


@dataclass(frozen=True, slots=True)
class Candidate:
    """``generate/candidates.parquet``: every parsed task, kept or dropped."""

    id: str = column(_S, "iteration, intended label, call and item: it007/feasible/003/02")
    task: str = column(_S, "the task's text, white space folded")
    intended: str = column(_S, f"label it was generated under: {_LABEL}")
    iteration: int = column(_I, "iteration that generated it")
    call: int = column(_I, "generation call, from 0, a label")
    item: int = column(_I, "place in the call's list, from 0")
    kept: bool = column(_B, "goes on to self-assessment")
    drop_reason: str | None = column(_S, "why it was dropped", null=True)
    similar_to: str | None = column(_S, "id of the near-duplicate that it was dropped for", null=True)
    similarity: float | None = column(_F, "ROUGE-L F1 to that task", null=True)
    few_shot_ids: list[str] = column(pa.list_(_S), "seeds and pool tasks in the prompt, in order")
    prompt_sha256: str = column(_S, "sha256 of the prompt template")
    engine: str = column(_S, "generation engine and its arithmetic")
    policy: str = column(_S, _POLICY)
    seed: int = column(_I, "noise stream of the call")
    finish_reason: str = column(_S, "stop, or length when the call was cut")


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """``classify/verdicts.parquet``: one row a verdict, k rows a task."""

    task_id: str = column(_S, "the candidate judged")
    sample: int = column(_I, "number of the verdict, 0 to k - 1")
    view: str = column(_S, "wording and label order in which it was asked")
    verdict: str = column(_S, f"{_LABEL}, or unparseable")
    text: str = column(_S, "the response")
    token_ids: list[int] = column(pa.list_(pa.int32()), "response tokens")
    logprobs: list[float] = column(
        pa.list_(pa.float32()), "natural log-probability of each response token, by the engine"
    )
    prompt_token_ids: list[int] = column(pa.list_(pa.int32()), "prompt tokens")
    p_infeasible: float | None = column(
        _F, "exact renormalised probability of infeasible (constrained mode)", null=True
    )
    label_mass: float | None = column(_F, "probability of both label strings before renormalisation", null=True)
    prompt_sha256: str = column(_S, "sha256 of the prompt template")
    engine: str = column(_S, "generation engine and its arithmetic")
    policy: str = column(_S, _POLICY)
    seed: int = column(_I, "noise stream of the task's verdicts")


@dataclass(frozen=True, slots=True)
class ConsensusRecord:
    """One row a judged task.

    ``consensus/consensus.parquet`` holds the candidates; ``consensus/anchors.parquet`` the anchors, whose ``intended``
    and ``label`` are both the verified label.
    """

    task_id: str = column(_S, "the candidate judged, or seed/<id> of an anchor")
    task: str = column(_S, "its text")
    intended: str = column(_S, f"label it was generated under, or the verified one: {_LABEL}")
    label: str | None = column(_S, f"label that verdicts are rewarded for: {_LABEL}; null for a tie", null=True)
    share: float = column(_F, "strength of that label: votes for it over k, after prior correction if there is one")
    evidence: float | None = column(
        _F, "share or probability of infeasible that the label was found from; null without a vote", null=True
    )
    teacher_feasible: int | None = column(_I, "verdicts feasible of the teacher; null without one", null=True)
    teacher_infeasible: int | None = column(_I, "verdicts infeasible of the teacher; null without one", null=True)
    votes_feasible: int = column(_I, "verdicts feasible")
    votes_infeasible: int = column(_I, "verdicts infeasible")
    votes_unparseable: int = column(_I, "verdicts that could not be parsed (no votes)")
    p_infeasible: float | None = column(_F, "mean exact probability over the views asked", null=True)
    agrees: bool | None = column(_B, "consensus equals the intended label; null for a tie", null=True)
    rewards: list[float] = column(pa.list_(_F), "reward of each verdict, in sample order")
    trained: bool = column(_B, "passed the training gate")
    train_drop_reason: str | None = column(_S, "why it is not trained on", null=True)
    pooled: bool = column(_B, "entered the pool")
    pool_drop_reason: str | None = column(_S, "why it did not enter the pool", null=True)


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """``consensus/pool.parquet``: the pool after this iteration, oldest first."""

    id: str = column(_S, "candidate id")
    task: str = column(_S, "its text")
    label: str = column(_S, f"consensus label: {_LABEL}")
    iteration: int = column(_I, "iteration that added it")
    share: float = column(_F, "its consensus share then")


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """``update/rollouts.parquet``: one row a verdict trained on."""

    task_id: str = column(_S, "the task")
    sample: int = column(_I, "number of the verdict")
    label: str | None = column(_S, f"label that the task's verdicts are rewarded for: {_LABEL}", null=True)
    anchor: bool = column(_B, "the task is a verified seed")
    batch: int = column(_I, "rollout batch in which its advantage was computed")
    reward: float = column(_F, "agreement reward, before the KL penalty")
    advantage: float = column(_F, "mean advantage over its tokens")
    importance: float = column(_F, "mean factor over its tokens that corrects for the engine; 1 without a correction")
    tokens: int = column(_I, "response tokens")
    logprob_engine: float = column(_F, "sum of the engine's log-probabilities")
    logprob_policy: float | None = column(
        _F, "sum of log-probabilities recomputed before the first step; null in a warm-up", null=True
    )
    logprob_reference: float | None = column(_F, "sum of the reference's log-probabilities", null=True)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """``update/training.parquet``: one row an optimizer step."""

    step: int = column(_I, "optimizer step since the start of the run, from 1; the loop counts anew after a warm-up")
    epoch: int = column(_I, "pass over the rollouts, from 0")
    batch: int = column(_I, "rollout batch, from 0")
    learning_rate: float = column(_F, "learning rate of the step")
    loss: float = column(_F, "loss of the step: policy_loss + rl.kl_coef * KL term - rl.entropy_coef * entropy term")
    policy_loss: float = column(_F, "clipped policy loss, or negative log-likelihood in a warm-up")
    kl: float | None = column(
        _F, "mean k1 estimate of KL(policy || reference) per token, at this step; null without a reference", null=True
    )
    kl_k3: float | None = column(_F, "the same by the k3 estimate, which is never negative", null=True)
    clip_fraction: float = column(_F, "share of tokens whose ratio was clipped")
    grad_norm: float = column(_F, "gradient norm before scaling")
    entropy: float = column(_F, "mean token entropy of the policy, in nats")
    tasks: int = column(_I, "tasks in the step")
    tokens: int = column(_I, "response tokens in the step")


@dataclass(frozen=True, slots=True)
class GuardRecord:
    """``evaluate/guards.parquet``: one row a firing of a guard."""

    iteration: int = column(_I, "iteration in whose evaluation it fired")
    guard: str = column(_S, "name of the guard, as in the config")
    metric: str = column(_S, "what it looked at")
    value: float | None = column(_F, "what it saw; null where that is no finite number", null=True)
    bound: float = column(_F, "bound that was crossed")
    action: str = column(_S, "warn, stop or rollback")
    message: str = column(_S, "what happened, in words")


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """``evaluate/intrinsic.parquet`` and ``evaluate/extrinsic.parquet``: one row a metric."""

    dataset: str = column(_S, "frozen or fresh (intrinsic); name of the labelled set (extrinsic)")
    metric: str = column(_S, "name of the metric")
    value: float | None = column(_F, "its value; null where it is undefined (one class only, no tasks)", null=True)
    n: int = column(_I, "tasks that it was computed on")
    predictor: str = column(_S, "model, or a control: always_infeasible, always_feasible, tfidf", default="model")
    lower: float | None = column(_F, "lower end of its 95 % bootstrap interval", null=True, default=None)
    upper: float | None = column(_F, "upper end of its 95 % bootstrap interval", null=True, default=None)


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """``evaluate/predictions.parquet``: one row an evaluated task, enough to recompute every metric."""

    dataset: str = column(_S, "set that the task belongs to")
    task_id: str = column(_S, "id in that set")
    task: str = column(_S, "its text")
    label: str = column(_S, f"truth (extrinsic) or intended label (intrinsic): {_LABEL}")
    predicted: str = column(_S, f"{_LABEL}, or unparseable (also a tied vote)")
    score: float | None = column(
        _F, "probability or vote share of infeasible; null without a parseable verdict", null=True
    )
    votes_feasible: int = column(_I, "verdicts feasible")
    votes_infeasible: int = column(_I, "verdicts infeasible")
    votes_unparseable: int = column(_I, "verdicts that could not be parsed")
    prompt_sha256: str = column(_S, "sha256 of the prompt template")
    policy: str = column(_S, _POLICY)
    category: str = column(_S, "kind of limit or topic in the set's own words; empty without one", default="")
    source: str = column(_S, "where the set's authors took the task from; empty without one", default="")
    pair: str = column(_S, "shared by a task and its twin of the other label; empty without one", default="")
