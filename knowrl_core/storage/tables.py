"""Records to Parquet and back, the schema checked both ways."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from knowrl_core.errors import ArtifactError, OtherVersionError
from knowrl_core.storage.schemas import Record, schema_of

R = TypeVar("R", bound=Record)


def write_table(path: Path, record: type[R], rows: Sequence[R]) -> None:
    """Write records in their order. The same rows give the same bytes with the same pyarrow.

    Raises:
        ArtifactError: A value does not fit its column, or a column that must not be null has a null.
    """
    schema = schema_of(record)
    names = [f.name for f in dataclasses.fields(cast("Any", record))]
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in names}
    try:
        table = pa.table(columns, schema=schema)
        table.validate()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{path.name}: rows do not fit the schema of {record.__name__}: {error}") from error
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ArtifactError(f"{path.name}: column {field.name!r} of {record.__name__} holds a null, expected none")
    pq.write_table(table, path, compression="zstd", version="2.6")


def read_table(path: Path, record: type[R]) -> list[R]:
    """Read records, in file order.

    Raises:
        ArtifactError: The file is missing, not Parquet, or of another schema.
    """
    schema = schema_of(record)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: cannot be read as Parquet: {error}", hint=REPAIR_HINT) from error
    if not table.schema.equals(schema, check_metadata=False):
        raise OtherVersionError(
            f"{path}: got columns {_brief(table.schema)}, expected {_brief(schema)} ({record.__name__})",
            hint="It was written by another version of KnowRL; go on with that version, or start a new run.",
        )
    build = cast("Any", record)
    return [build(**row) for row in table.to_pylist()]


REPAIR_HINT = "`knowrl resume RUN --repair` does that stage and what follows from it again."


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def _brief(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
