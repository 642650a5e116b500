"""How far the stage under way is, and how fast it goes: measured by the process that does it, read by any."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from knowrl_core.storage.layout import StageKey

WINDOW: Final = 30.0
"""Seconds that speeds are measured over."""
_EVERY: Final = 0.5
"""Seconds between two samples of the window."""

_Count = Annotated[int, Field(ge=0, le=10**15)]
_Amount = Annotated[float, Field(ge=0.0, le=1e15)]


class StageProgress(BaseModel):
    """The stage under way at one moment. It may come from a file that anybody wrote: every field has bounds."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    stage: Annotated[str, Field(max_length=20)]
    """Such as ``007/update``."""
    phase: Annotated[str, Field(max_length=20, pattern=r"^[a-z]*$")] = ""
    """Part of the stage that the counts are of: of an update ``reference``, ``policy``, ``train`` or ``save``."""
    done: _Count = 0
    """Items done: calls in ``generate``, optimizer steps in the phase ``train``, prompts elsewhere."""
    total: _Count = 0
    """Items in all; 0 before that is known."""
    seconds: _Amount = 0.0
    """Since the stage began."""
    per_second: _Amount | None = None
    """Items a second lately; None before there is anything to measure."""
    tokens_per_second: _Amount | None = None
    """Tokens written, scored or trained on a second lately; None without any."""

    @field_validator("stage")
    @classmethod
    def _a_stage(cls, value: str) -> str:
        return str(StageKey.parse(value))

    @property
    def key(self) -> StageKey:
        """The stage."""
        return StageKey.parse(self.stage)

    @property
    def counts(self) -> bool:
        """Whether the counts are those of the stage's main work, and not of what comes before it in an update."""
        return self.phase in {"", "train"}

    @property
    def fraction(self) -> float:
        """Share of the stage's work that is done, 0 to 1."""
        if self.phase == "save":
            return 1.0
        return min(1.0, self.done / self.total) if self.counts and self.total else 0.0


class Meter:
    """Measures the stage under way. One thread may write while others read.

    Args:
        clock: Seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._key: StageKey | None = None
        self._started = 0.0
        self._phase, self._done, self._total, self._tokens = "", 0, 0, 0
        self._samples: deque[tuple[float, int, int]] = deque()

    def begin(self, key: StageKey) -> None:
        """A stage starts."""
        with self._lock:
            self._key, self._started = key, self._clock()
            self._tokens = 0
            self._restart("", 0, 0)

    def advance(self, done: int, total: int, phase: str = "") -> None:
        """The stage has done so much."""
        with self._lock:
            if phase != self._phase or done < self._done:
                self._restart(phase, done, total)
            self._done, self._total = done, total
            self._sample()

    def add_tokens(self, count: int) -> None:
        """So many more tokens were written, scored or trained on."""
        with self._lock:
            self._tokens += count

    def end(self) -> None:
        """The stage is over."""
        with self._lock:
            self._key = None

    def read(self) -> StageProgress | None:
        """Where the stage is now; None between stages."""
        with self._lock:
            if self._key is None:
                return None
            now = self._clock()
            since, done, tokens = self._samples[0]
            spent = now - since
            measured = spent >= _EVERY
            return StageProgress(
                stage=str(self._key),
                phase=self._phase,
                done=self._done,
                total=self._total,
                seconds=max(0.0, now - self._started),
                per_second=(self._done - done) / spent if measured and self._done > done else None,
                tokens_per_second=(self._tokens - tokens) / spent if measured and self._tokens > tokens else None,
            )

    def _restart(self, phase: str, done: int, total: int) -> None:
        self._phase, self._done, self._total = phase, done, total
        self._samples = deque([(self._clock(), done, self._tokens)])

    def _sample(self) -> None:
        now = self._clock()
        if now - self._samples[-1][0] >= _EVERY:
            self._samples.append((now, self._done, self._tokens))
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()
