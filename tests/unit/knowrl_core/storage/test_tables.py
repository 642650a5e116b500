"""Records to Parquet and back."""

import dataclasses
import typing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowrl_core.errors import ArtifactError
from knowrl_core.storage import schemas
from knowrl_core.storage.files import sha256_file
from knowrl_core.storage.schemas import MetricRecord, PoolRecord, schema_of
from knowrl_core.storage.tables import count_rows, read_table, write_table

RECORDS = [
    item for item in vars(schemas).values() if dataclasses.is_dataclass(item) and item.__module__ == schemas.__name__
]
VALUES = {
    pa.string(): st.text(max_size=20),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.list_(pa.string()): st.lists(st.text(max_size=5), max_size=3),
    pa.list_(pa.int32()): st.lists(st.integers(0, 2**31 - 1), max_size=3),
    pa.list_(pa.float32()): st.lists(st.floats(width=32, allow_nan=False), max_size=3),
    pa.list_(pa.float64()): st.lists(st.floats(allow_nan=False), max_size=3),
}


def rows_of(record):
    columns = {}
    for field in dataclasses.fields(record):
        values = VALUES[field.metadata["type"]]
        columns[field.name] = st.none() | values if field.metadata["null"] else values
    return st.lists(st.builds(record, **columns), max_size=4)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_record_survives_parquet(tmp_path_factory, record, data):
    rows = data.draw(rows_of(record))
    path = tmp_path_factory.mktemp("t") / "x.parquet"
    write_table(path, record, rows)
    assert read_table(path, record) == rows
    assert count_rows(path) == len(rows)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_column_is_described_and_typed_alike(record):
    hints = typing.get_type_hints(record)
    for field in schema_of(record):
        assert len(field.metadata[b"description"]) > 3
        assert field.nullable == (type(None) in typing.get_args(hints[field.name]))


def test_descriptions_stand_in_the_file(tmp_path):
    write_table(tmp_path / "x.parquet", MetricRecord, [])
    schema = pq.read_schema(tmp_path / "x.parquet")
    assert schema.field("metric").metadata[b"description"] == b"name of the metric"
    assert schema.metadata[b"knowrl.schema_version"] == str(schemas.SCHEMA_VERSION).encode()


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [PoolRecord("a", "täsk <b>", "feasible", 1, 0.875)]
    for name in ("x", "y"):
        write_table(tmp_path / name, PoolRecord, rows)
    assert sha256_file(tmp_path / "x") == sha256_file(tmp_path / "y")


def test_a_null_where_none_may_be_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="'task'"):
        write_table(tmp_path / "x.parquet", PoolRecord, [PoolRecord("a", None, "feasible", 1, 1.0)])
    with pytest.raises(ArtifactError, match="do not fit"):
        write_table(tmp_path / "x.parquet", PoolRecord, [PoolRecord("a", 7, "feasible", 1, 1.0)])


def test_another_schema_is_refused(tmp_path):
    write_table(tmp_path / "x.parquet", PoolRecord, [])
    with pytest.raises(ArtifactError, match="MetricRecord"):
        read_table(tmp_path / "x.parquet", MetricRecord)
    (tmp_path / "y.parquet").write_bytes(b"no parquet")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_table(tmp_path / "y.parquet", MetricRecord)
