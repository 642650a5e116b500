"""What a stage directory says of itself: inputs, outputs, signature, config slice, timings, metrics."""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from knowrl_core.errors import ArtifactError, OtherVersionError
from knowrl_core.storage.files import read_small, sha256_json
from knowrl_core.storage.records import SEAL, first_problem, sealed
from knowrl_core.storage.schemas import SCHEMA_VERSION
from knowrl_core.storage.tables import REPAIR_HINT

MANIFEST: Final = "manifest.json"


class FileRef(BaseModel):
    """One file that a stage read or wrote.

    ``path`` is relative to the run directory; inputs from outside the run (model, seeds, prompts) are named
    ``external/...`` after what they are, so that a manifest is the same on every machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str
    bytes: int | None = None
    rows: int | None = None

    @field_validator("path")
    @classmethod
    def _inside_the_run(cls, value: str) -> str:
        # A run directory may come from somebody else: what its manifests name is opened, hashed, copied and uploaded.
        if "\0" in value or not {"", ".", ".."}.isdisjoint(value.split("/")):
            raise ValueError("expected a path inside the run directory")
        return value


class Manifest(BaseModel):
    """``manifest.json`` of a stage directory; it is written last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    stage: str
    iteration: int
    signature: str
    seed: int
    config: dict[str, Any]
    inputs: tuple[FileRef, ...]
    outputs: tuple[FileRef, ...]
    metrics: dict[str, float]
    code_version: str
    started: str
    finished: str
    seconds: float

    def sealed(self) -> str:
        """The text of ``manifest.json``: all of the above, and a sha256 over it that shows any alteration."""
        return json.dumps(sealed(self.model_dump(mode="json")), indent=2)


def signature(*, stage: str, seed: int, iteration: int, config: dict[str, Any], inputs: tuple[FileRef, ...]) -> str:
    """Sha256 over all that decides a stage's result.

    Stage name, schema version, run seed and iteration (they pick the random streams), the sha256 of the inputs by
    name, and the stage's own slice of the config.
    """
    return sha256_json(
        {
            "stage": stage,
            "schema_version": SCHEMA_VERSION,
            "seed": seed,
            "iteration": iteration,
            "config": config,
            "inputs": sorted([ref.path, ref.sha256] for ref in inputs),
        }
    )


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a stage directory.

    Raises:
        ArtifactError: It is missing, broken, of another schema version, or its signature does not fit its content.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(read_small(path))
        seal = content.pop(SEAL, None) if isinstance(content, dict) else None
        manifest = Manifest.model_validate(content)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}", hint=REPAIR_HINT) from error
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise ArtifactError(f"{path}: not JSON: {error}", hint=REPAIR_HINT) from None
        raise ArtifactError(f"{path}: not a manifest: {first_problem(error)}", hint=REPAIR_HINT) from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise OtherVersionError(
            f"{path}: got schema version {manifest.schema_version}, expected {SCHEMA_VERSION}",
            hint="It was written by another version of KnowRL; go on with that version, or start a new run.",
        )
    expected = signature(
        stage=manifest.stage,
        seed=manifest.seed,
        iteration=manifest.iteration,
        config=manifest.config,
        inputs=manifest.inputs,
    )
    if manifest.signature != expected or seal != sha256_json(content):
        raise ArtifactError(f"{path}: its signature does not fit its content; it was altered", hint=REPAIR_HINT)
    return manifest
