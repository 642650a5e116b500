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
    build = cast("Any", record)
    return [build(**row) for row in _read(path, record).to_pylist()]


def read_columns(path: Path, record: type[Record], names: Sequence[str]) -> dict[str, list[Any]]:
    """Read some columns of a file of records; the others are not decoded.

    Raises:
        ArtifactError: As :func:`read_table`.
    """
    return {name: values.to_pylist() for name, values in zip(names, _read(path, record, names).columns, strict=True)}


def _read(path: Path, record: type[Record], names: Sequence[str] | None = None) -> pa.Table:
    schema = schema_of(record)
    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow
            table = file.read(columns=names and list(names)) if found.equals(schema, check_metadata=False) else None
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: cannot be read as Parquet: {error}", hint=REPAIR_HINT) from error
    if table is None:
        raise OtherVersionError(
            f"{path}: got columns {_brief(found)}, expected {_brief(schema)} ({record.__name__})",
            hint="It was written by another version of KnowRL; go on with that version, or start a new run.",
        )
    return table


REPAIR_HINT = "`knowrl resume RUN --repair` does that stage and what follows from it again."


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def _brief(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
