"""The keys of a run's artifacts in Prefect, where artifacts of one key are versions of one another."""

import re
from hashlib import sha256
from typing import Final, Literal

Kind = Literal["progress", "stages", "iterations", "report"]
"""What an artifact shows of a run."""

_HASHED: Final = re.compile(r".*-[0-9a-f]{8}")


def artifact_key(run: str, kind: Kind) -> str:
    """The key of one of a run's artifacts: no two runs, and no two kinds, have one in common.

    Prefect takes lower-case letters, digits and dashes. A name that has others keeps what it can and ends in a piece of
    its hash, as does one that looks so by itself. The kind ends every key, so that no name can pretend to be another
    run's report.

    Args:
        run: The run's name.
        kind: What the artifact shows.
    """
    name = re.sub(r"[^a-z0-9-]", "-", run.lower())
    if name != run or _HASHED.fullmatch(run):
        name = f"{name.strip('-')}-{sha256(run.encode()).hexdigest()[:8]}"
    return f"knowrl-{name}-{kind}"
