"""One labelled task, as a line of a seed file holds it."""

import re
import unicodedata
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from knowrl_core.labels import Label

MAX_TASK_CHARS: Final = 4_000
"""Longest task text. A prompt holds several tasks, so longer ones would crowd the others out."""

MAX_NOTE_CHARS: Final = 2_000
"""Longest text of any other field."""

ID_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,64}$"
"""Ids appear in file names, lineage columns and tables: no spaces, quotes or slashes."""

Form = Literal["instruction", "question"]
"""Whether a task tells the model to do something or asks it something."""

_SPACE = re.compile(r"\s+")


def _plain_text(value: str) -> str:
    """Refuse characters that no prompt or table can hold, then strip.

    Raises:
        ValueError: A control character other than newline and tab.
    """
    for place, char in enumerate(value):
        if char not in "\n\t" and unicodedata.category(char) == "Cc":
            raise ValueError(f"control character U+{ord(char):04X} at character {place + 1}")
    return value.strip()


def _visible_text(value: str) -> str:
    """Refuse text that would print as nothing, such as spaces and zero-width characters.

    Raises:
        ValueError: No visible character, or what :func:`_plain_text` refuses.
    """
    value = _plain_text(value)
    if not any(char.isprintable() and not char.isspace() for char in value):
        raise ValueError("no visible character")
    return value


TaskText = Annotated[str, Field(max_length=MAX_TASK_CHARS), AfterValidator(_visible_text)]
Note = Annotated[str, Field(max_length=MAX_NOTE_CHARS), AfterValidator(_plain_text)]


class SeedTask(BaseModel):
    """A task with its verified label.

    Only ``id``, ``task`` and ``label`` are required, so that anybody's labelled tasks can be used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    """Name of the task, unique over all files of a run."""

    task: TaskText
    """What a user asks, word for word."""

    label: Label
    """Whether a language model without tools can do it."""

    self_knowledge: Note = ""
    """Kind of self-knowledge that the label depends on, in the terms of Line of Duty."""

    limit: Note = ""
    """Limit that makes the task infeasible; for a feasible one, the limit it resembles or ``none``."""

    form: Form | None = None
    """Instruction or question; ``None`` where a user's file does not say."""

    reason: Note = ""
    """Why the label is right, in one sentence about this task."""

    provenance: Note = ""
    """Where the task comes from and how its label was verified."""

    pair: Note = ""
    """Shared by an infeasible task and its feasible twin; empty for a task of its own."""


REQUIRED: Final = tuple(n for n, f in SeedTask.model_fields.items() if f.is_required())
RECOMMENDED: Final = ("self_knowledge", "limit", "form", "reason", "provenance")


def normalise(text: str) -> str:
    """Return the form in which two texts count as the same task.

    Case, spacing, Unicode compatibility forms and closing punctuation are dropped. Inner punctuation stays:
    ``2+2`` and ``2-2`` are different tasks.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    squeezed = _SPACE.sub(" ", folded).strip()
    # A text of nothing but punctuation must not become empty, and so equal to every other.
    return squeezed.rstrip(" .?!…") or squeezed
