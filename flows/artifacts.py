"""Tables in the Prefect UI."""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_table_artifact

from tasks.reporter import Reporter


def publish_table(rows: Sequence[dict[str, Any]], key: str, description: str, reporter: Reporter) -> None:
    """Store a table as a Prefect artifact; a failure is a warning, since what it shows is done.

    Args:
        rows: Its rows, by column.
        key: Lower-case letters, digits and dashes; a table of the same key is a new version.
        description: Shown above it.
        reporter: Told of a failure.
    """
    try:
        create_table_artifact(list(rows), key=key, description=description)
    except Exception as error:
        reporter.warning(f"Prefect does not take the table {key}: {type(error).__name__}: {error}")
