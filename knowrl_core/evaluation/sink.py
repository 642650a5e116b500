"""Write predictions to Parquet as they come, so that memory does not grow with their number."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from knowrl_core.errors import ArtifactError, InputError
from knowrl_core.storage.schemas import PredictionRecord, schema_of


class PredictionSink:
    """A prediction file that appears when it is complete: it is written beside its place and renamed at the end.

    The same predictions in the same chunks give the same bytes with the same pyarrow.

    Args:
        path: The file; None writes nothing.

    Raises:
        InputError: Its folder is missing or cannot be written to.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._schema = schema_of(PredictionRecord)
        self._writer: pq.ParquetWriter | None = None
        if path is not None:
            self._partial = path.with_name(f".{path.name}.partial")
            try:
                self._writer = pq.ParquetWriter(self._partial, self._schema, compression="zstd", version="2.6")
            except OSError as error:
                raise InputError(
                    f"{str(path)!r}: cannot be written: {error.strerror or error}", hint="Choose another place."
                ) from None

    def write(self, rows: Sequence[PredictionRecord]) -> None:
        """Append predictions.

        Raises:
            ArtifactError: A value does not fit its column.
        """
        if self._writer is None or not rows:
            return
        names = self._schema.names
        try:
            table = pa.table({name: [getattr(row, name) for row in rows] for name in names}, schema=self._schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(f"{self._path}: predictions do not fit their schema: {error}") from error
        self._writer.write_table(table)

    def __enter__(self) -> "PredictionSink":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._writer is None or self._path is None:
            return
        self._writer.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            with contextlib.suppress(OSError):
                self._partial.unlink()
