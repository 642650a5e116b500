"""What follows from an iteration's evaluation: ``evaluate/decision.json``."""

from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knowrl_core.errors import ArtifactError
from knowrl_core.storage.files import canonical_json, read_small
from knowrl_core.storage.records import first_problem
from knowrl_core.storage.tables import REPAIR_HINT

DECISION: Final = "decision.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Point(_Part):
    """What guards need to know of an earlier iteration."""

    iteration: int
    """Its number."""

    balanced_accuracy: float | None
    """On the probe; None where it is undefined."""

    reward: float | None
    """Mean reward of its verdicts; None without any."""


class Decision(_Part):
    """Where the next iteration starts, or that there is none.

    Cumulative: no other file is needed to go on from here.
    """

    parent: int
    """Iteration whose checkpoint, optimizer state and pool the next iteration starts from."""

    lineage: tuple[Point, ...] = Field(min_length=1)
    """The parent, after the iterations that it came from, from iteration 0 on. Discarded ones are not among them."""

    learning_rate_factor: float
    """Product of the factors of all rollbacks so far."""

    rollbacks: int
    """Rollbacks so far."""

    stop: bool
    """The run ends here."""

    reason: str | None
    """Why it stops or rolls back; None if it does neither."""

    def text(self) -> str:
        """The content of the file."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            ArtifactError: It is missing or malformed.
        """
        try:
            return cls.model_validate_json(read_small(path))
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}", hint=REPAIR_HINT) from error
        except ValidationError as error:
            raise ArtifactError(f"{path}: not a decision: {first_problem(error)}", hint=REPAIR_HINT) from None
