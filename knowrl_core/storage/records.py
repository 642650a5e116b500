"""What the small JSON records of a run have in common."""

from typing import Any, Final

from pydantic import ValidationError

from knowrl_core.storage.files import sha256_json

SEAL: Final = "sha256"
"""The key that holds the sha256 of a record's other content."""


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """A record with a sha256 over it that shows any alteration."""
    return {**content, SEAL: sha256_json(content)}


def first_problem(error: ValidationError) -> str:
    """Field and message of the first thing that is wrong with a record, without its value."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"])) or "file"
    return f"{field}: {first['msg']}"
