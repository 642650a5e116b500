"""What the update is given: the verdicts of each task with their rewards. Crosses process boundaries as JSON."""

from collections.abc import Iterable
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from knowrl_core.labels import Label

TokenId = Annotated[int, Field(ge=0)]
"""Index into the model's vocabulary."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Verdict(_Message):
    """One sampled response and what it earned."""

    sample: Annotated[int, Field(ge=0)]
    """Number of the verdict within its task."""

    response_token_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)]
    """What was sampled, end-of-turn token included if it was."""

    engine_logprobs: tuple[float, ...]
    """Natural log-probability of each response token, by the engine that sampled it."""

    reward: float
    """Reward of the whole response, before the KL penalty."""

    @model_validator(mode="after")
    def _one_logprob_a_token(self) -> Self:
        if len(self.engine_logprobs) != len(self.response_token_ids):
            raise ValueError(
                f"verdict {self.sample} has {len(self.engine_logprobs)} engine_logprobs, expected one for each of its "
                f"{len(self.response_token_ids)} response tokens"
            )
        return self


class PromptGroup(_Message):
    """The verdicts of a task that were asked with one and the same prompt (one view)."""

    prompt_token_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)]
    """The prompt; its last token predicts the first token of each response."""

    verdicts: Annotated[tuple[Verdict, ...], Field(min_length=1)]
    """Its verdicts."""


class FlatVerdict(NamedTuple):
    """A verdict next to the prompt that it answered, as the Parquet files hold it."""

    prompt_token_ids: tuple[int, ...]
    verdict: Verdict


class Rollout(_Message):
    """All verdicts of one task, grouped by prompt: a task asked under several views has several prompts."""

    task_id: Annotated[str, Field(min_length=1)]
    """The task."""

    prompts: Annotated[tuple[PromptGroup, ...], Field(min_length=1)]
    """One group a distinct prompt."""

    label: Label | None = None
    """Label that its verdicts are rewarded for, as far as balancing needs it; None for none."""

    anchor: bool = False
    """The task is a verified seed."""

    @model_validator(mode="after")
    def _samples_are_distinct(self) -> Self:
        samples = [verdict.sample for group in self.prompts for verdict in group.verdicts]
        if len(set(samples)) != len(samples):
            raise ValueError(f"task {self.task_id} has samples {sorted(samples)}, expected each number once")
        return self

    @classmethod
    def from_verdicts(
        cls, task_id: str, verdicts: Iterable[FlatVerdict], *, label: Label | None = None, anchor: bool = False
    ) -> Self:
        """Group a task's verdicts by prompt, in the order in which the prompts first occur."""
        groups: dict[tuple[int, ...], list[Verdict]] = {}
        for prompt_token_ids, verdict in verdicts:
            groups.setdefault(tuple(prompt_token_ids), []).append(verdict)
        return cls(
            task_id=task_id,
            prompts=tuple(PromptGroup(prompt_token_ids=ids, verdicts=tuple(group)) for ids, group in groups.items()),
            label=label,
            anchor=anchor,
        )

    @property
    def n_verdicts(self) -> int:
        """Verdicts over all prompts."""
        return sum(len(group.verdicts) for group in self.prompts)

    @property
    def longest_prompt(self) -> int:
        """Length of the longest prompt, in tokens."""
        return max(len(group.prompt_token_ids) for group in self.prompts)

    @property
    def longest_sequence(self) -> int:
        """Length of the longest prompt with response, in tokens."""
        return max(
            len(group.prompt_token_ids) + len(verdict.response_token_ids)
            for group in self.prompts
            for verdict in group.verdicts
        )
