"""What an engine is asked and what it answers.

Two kinds of request, for which each engine gives the same semantics: free text (:class:`GenerateRequest`) and the exact
probability of a few given strings (:class:`ChooseRequest`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(_Message):
    """One chat turn. Content is data: special tokens inside it are neutralised before tokenisation."""

    role: Literal["system", "user", "assistant"]
    content: str


class GenerateRequest(_Message):
    """Sample ``n`` responses to one prompt.

    A last turn of the assistant is a prefill: the response continues it. Sample ``j`` draws its noise from the stream
    ``(seed, j, position)`` alone, so that it does not depend on what it was batched with.
    """

    turns: tuple[Turn, ...] = Field(min_length=1)
    n: int = Field(default=1, ge=1)
    seed: int = Field(ge=0, lt=2**63)
    temperature: float = Field(default=1.0, ge=0.0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_new_tokens: int = Field(ge=1)
    stop: tuple[str, ...] = ()
    """Strings at whose first occurrence the text is cut (the string itself is left out)."""


class Sample(_Message):
    """One response."""

    text: str
    token_ids: tuple[int, ...]
    """What was sampled, including the end-of-turn token or the tokens of the stop string."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each token under the raw model (temperature 1, no nucleus), same length."""
    finish_reason: FinishReason


class GenerateResult(_Message):
    """Answer to a :class:`GenerateRequest`."""

    prompt_token_ids: tuple[int, ...]
    samples: tuple[Sample, ...]


class ChooseRequest(_Message):
    """Score a few strings as the next text after one prompt."""

    turns: tuple[Turn, ...] = Field(min_length=1)
    choices: tuple[str, ...] = Field(min_length=1)
    closed: bool = False
    """Each choice is the whole response: the model's end-of-turn token follows it, and is scored as well."""


class ChooseResult(_Message):
    """Answer to a :class:`ChooseRequest`; per choice, in its order.

    ``sum(token_logprobs[c])`` is the log-probability of choice ``c``; a softmax over these sums is the renormalised
    distribution. ``exp`` of them added up is the mass that the model puts on the choices at all.
    """

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[tuple[int, ...], ...]
    token_logprobs: tuple[tuple[float, ...], ...]


@runtime_checkable
class Reloadable(Protocol):
    """An engine outside this process: it outlives a change of the policy."""

    def load(self, folder: Path) -> None:
        """Take the weights in another folder, of the same architecture and tokenizer."""
        ...

    def rest(self) -> None:
        """Free the devices' memory until the next ``load``."""
        ...

    def close(self) -> None:
        """End what the engine started."""
        ...


class GenerationEngine(Protocol):
    """Answers requests in their order, as they become ready (an iterator: progress can be shown)."""

    @property
    def name(self) -> str:
        """Engine and arithmetic, as the lineage names it, such as ``transformers/bf16``."""
        ...

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[GenerateResult]:
        """Sample text for each request."""
        ...

    def choose(self, requests: Sequence[ChooseRequest]) -> Iterator[ChooseResult]:
        """Score each request's choices."""
        ...
