"""What the pipeline and the model worker say to each other: one JSON object a line.

A request is answered by any number of ``item`` and ``progress`` lines and then one ``done`` or ``error`` line.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from knowrl_core import errors
from knowrl_core.config.system import EngineConfig
from knowrl_core.errors import KnowrlError, StageError

_ERRORS: Final[dict[str, type[KnowrlError]]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, KnowrlError)
}


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineSpec(_Message):
    """Which weights to serve, and how."""

    folder: Path
    """Hugging Face folder of the policy."""
    policy: str
    """Name and sha256 of the weights; another one means that they are loaded anew."""
    device: Literal["auto", "cpu", "cuda"]
    engine: EngineConfig
    log: Path | None = None
    """File for the output of a server that the engine starts; ``vllm.log`` in the current folder if None."""
    adapter_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the LoRA adapters that later policies have; 0 where all their weights are trained."""
    replica: Annotated[int, Field(ge=0)] = 0
    """Number of this worker among those that share the requests; on GPUs each takes a device of its own."""


class Request(_Message):
    """One request to the worker."""

    op: Literal["describe", "generate", "choose", "update"]
    engine: EngineSpec
    """The policy; ``update`` takes from it only where and with how many threads to compute."""
    items: list[dict[str, Any]] = Field(default_factory=list)
    """Engine requests."""
    job: dict[str, Any] | None = None
    """An update job, without its device."""


class Failure(_Message):
    """Why a request failed; ``kind`` is the name of an error class of ``knowrl_core.errors``."""

    kind: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, error: KnowrlError) -> "Failure":
        """What to send of an error."""
        return cls(kind=type(error).__name__, message=error.message, hint=error.hint)

    def as_error(self) -> KnowrlError:
        """The error again; a :class:`StageError` if its class has no public name."""
        return _ERRORS.get(self.kind, StageError)(self.message, hint=self.hint)


class Progress(_Message):
    """How far a request is."""

    done: int
    total: int
    phase: str = ""
    """Part of the request that the counts are of."""
    tokens: int = 0
    """Tokens since the last such line."""


class Reply(_Message):
    """One line of an answer; exactly one field is set."""

    item: dict[str, Any] | None = None
    progress: Progress | None = None
    done: dict[str, Any] | None = None
    error: Failure | None = None
