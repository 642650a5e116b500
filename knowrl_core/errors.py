"""Errors that a user can act on: what was got, what was expected, what to do next."""


class KnowrlError(Exception):
    """Base of every error that KnowRL raises on purpose.

    Args:
        message: What was got and what was expected.
        hint: The next step for the user; printed on a line of its own.
    """

    exit_code = 1
    """Exit code of the command line when this error ends it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InputError(KnowrlError, ValueError):
    """Something that the user wrote is wrong: a config, a seed file, a name, a path."""

    exit_code = 2


class StageError(KnowrlError):
    """A stage could not finish; what was committed before it stands."""

    exit_code = 1


class ArtifactError(KnowrlError):
    """An artifact on disk is missing, altered or of another schema."""

    exit_code = 4


class OtherVersionError(ArtifactError):
    """An artifact was written by another version of KnowRL: sound, but not for this one. Repair must not remove it."""


class RunLockedError(KnowrlError):
    """Another process writes to this run."""

    exit_code = 3


class WorkerDiedError(StageError):
    """The model worker's process ended unexpectedly; starting it again may help."""
