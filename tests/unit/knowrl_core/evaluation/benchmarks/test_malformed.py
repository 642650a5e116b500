"""Malformed files: every problem is named with file, line or row, and field; nothing is skipped."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowrl_core.errors import InputError
from knowrl_core.evaluation import find_benchmark
from knowrl_core.evaluation.benchmarks import json_array
from knowrl_core.evaluation.benchmarks.json_array import read_array
from knowrl_core.evaluation.benchmarks.row import MAX_ROW_CHARS

GOOD = {"question": "Why?", "answer": [], "unknown": True, "source": "s", "category": "c"}


def load(name, path):
    return list(find_benchmark(name).load(path, Counter()))


def kuq(tmp_path, second):
    """A file whose second line is this."""
    file = tmp_path / "knowns_unknowns.jsonl"
    raw = second if isinstance(second, bytes) else json.dumps(second).encode()
    file.write_bytes(json.dumps(GOOD).encode() + b"\n" + raw + b"\n")
    return file


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "Why?", "unknown": True}, "field 'question': missing, expected text; got fields 'text', 'unknown'"),
        ({"question": "Why?"}, "field 'unknown': missing, expected true or false"),
        (GOOD | {"unknown": 1}, "field 'unknown': got 1, expected true or false"),
        (GOOD | {"unknown": "true"}, "field 'unknown': got 'true', expected true or false"),
        (GOOD | {"unknown": None}, "field 'unknown': got None"),
        (GOOD | {"question": ""}, "field 'question': got '', expected text with at least one visible"),
        (GOOD | {"question": " \n\u200b"}, "field 'question': got .*visible"),
        (GOOD | {"question": ["Why?"]}, "field 'question': got .*, expected text"),
        (GOOD | {"question": "x" * 20_001}, "field 'question': got .*expected at most 20,000 characters"),
        (GOOD | {"question": "\ud800"}, "field 'question': got .*"),
        (GOOD | {"category": 3}, "field 'category': got 3, expected text"),
        ([1, 2], "expected a JSON object"),
        (b'{"question": "Why?", "question": "Who?"}', ".*key 'question' stands twice"),
        (b'{"question": "Why?"', "expected JSON"),
        (b"[" * 100_000, ".*expected JSON: nested too deeply"),
        (b'{"question": "\xff", "unknown": true}', "got byte 15 of .*, expected UTF-8"),
        (b'{"question": "' + b"x" * 10_000_000 + b'"}', "got a line of more than 1,000,000 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_json_lines(tmp_path, row, problem):
    file = kuq(tmp_path, row)
    with pytest.raises(InputError, match=f"knowns_unknowns.jsonl:2: (.*, |.*: )?{problem}") as caught:
        load("kuq", file)
    assert caught.value.hint
    assert len(str(caught.value)) < 1_000


def test_markup_and_control_characters_are_data(tmp_path):
    nasty = "<|im_end|>\n[[system]] {{ 7*7 }} {% x %} \x00\x1b[31m\x07 <script>&amp; [bold]\u202e"
    assert load("kuq", kuq(tmp_path, GOOD | {"question": nasty}))[1].task == nasty


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\n\n  \r\n" + json.dumps(GOOD).encode())
    assert len(load("kuq", file)) == 2


def test_two_rows_of_one_id(tmp_path):
    row = {"id": "a", "task": "Sing.", "generated_as": "feasible", "classified_as": "feasible"}
    file = tmp_path / "tasks.jsonl"
    file.write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n")
    with pytest.raises(InputError, match=r"tasks.jsonl:2: field 'id': got 'a' again, expected it once"):
        load("lineofduty", file)
    file.write_text(json.dumps(row | {"generated_as": "Feasible"}))
    with pytest.raises(InputError, match="field 'generated_as': got 'Feasible', expected 'feasible' or 'infeasible'"):
        load("lineofduty", file)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_empty_files(tmp_path, content):
    (tmp_path / "knowns_unknowns.jsonl").write_bytes(content)
    with pytest.raises(InputError, match="got no row, expected at least one task"):
        load("kuq", tmp_path)


def test_places_without_a_file(tmp_path):
    with pytest.raises(InputError, match=r"kuq: .*absent.*got nothing, expected knowns_unknowns.jsonl"):
        load("kuq", tmp_path / "absent")
    with pytest.raises(InputError, match=r"got a folder without original_test.jsonl and contrast_test.jsonl"):
        load("coconot", tmp_path)
    with pytest.raises(InputError, match=r"cannot be read|got nothing"):
        load("kuq", tmp_path / "a\0b")
    with pytest.raises(InputError, match="not on the Hugging Face Hub"):
        load("selfaware", None)


ITEM = {"question_id": 1, "question": "Why?", "answerable": False}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (json.dumps({"examples": [ITEM]}), "field 'example': missing, expected an array; got fields \\['examples'\\]"),
        (json.dumps({"example": {"a": 1}}), ":1: got '{', expected an array under 'example'"),
        (json.dumps([ITEM]), r":1: got '\[', expected an object with the key 'example'"),
        ('{\n"example": [\n' + json.dumps(ITEM) + ",\n3]}", r":4: example\[1\]: got 3, expected a JSON object"),
        ('{"example": [' + json.dumps(ITEM), "got the end of the file, expected ',' or ']' after"),
        ('{"example": [' + json.dumps(ITEM) + "]", "got the end of the file, expected ',' or '}'"),
        ('{"example": [' + json.dumps(ITEM) + "]} x", "got 'x' after the document"),
        ('{"example": [{"question": "Why', r":1: example\[0\]: got no JSON: Unterminated"),
        ('{"example": [{"a": 1, "a": 2}]}', "key 'a' stands twice"),
        ('{"example": [' + json.dumps(ITEM) + '], "example": []}', "got key 'example' twice"),
        ("", "got the end of the file, expected an object"),
        ('{"example": []}', "got no row"),
        (json.dumps({"example": [ITEM | {"question": "x" * 10_000_000}]}), r"example\[0\]: got more than 1,000,000"),
        (json.dumps({"example": [ITEM | {"answerable": "no"}]}), r":1: example\[0\]: field 'answerable': got 'no'"),
        (json.dumps({"example": [{"question": "Why?", "answerable": True}]}), r"field 'question_id': got None"),
        (json.dumps({"example": [ITEM, ITEM]}), r"example\[1\]: field 'id': got '1' again, expected it once"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_json_documents(tmp_path, text, problem):
    file = tmp_path / "SelfAware.json"
    file.write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        load("selfaware", file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 1_000


def test_a_document_that_is_not_utf8(tmp_path):
    file = tmp_path / "SelfAware.json"
    file.write_bytes(b'{"example": [\n{"question_id": 1,\n"question": "\xff"}]}')
    with pytest.raises(InputError, match=r"SelfAware.json:3: got bytes .*expected UTF-8"):
        load("selfaware", file)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), max_size=6)


@settings(max_examples=60, deadline=None)
@given(OBJECTS, st.integers(1, 40), st.sampled_from([None, 2]), VALUES)
def test_the_array_reader_reads_what_json_reads_however_it_is_cut(tmp_path_factory, rows, chunk, indent, other):
    file = tmp_path_factory.mktemp("array") / "x.json"
    file.write_text(json.dumps({"before": other, "rows": rows, "behind": 1.5}, indent=indent), encoding="utf-8")
    before = json_array._CHUNK
    json_array._CHUNK = chunk
    try:
        found = list(read_array(file, "rows"))
    finally:
        json_array._CHUNK = before
    assert [row.data for row in found] == rows
    text = file.read_text(encoding="utf-8").split("\n")
    assert all(text[int(row.place.split(":")[-2]) - 1].lstrip().startswith(("{", '{"')) for row in found)


def test_memory_stays_flat(tmp_path):
    import tracemalloc

    peaks = []
    for count in (500, 20_000):
        file = tmp_path / "SelfAware.json"
        with file.open("w") as stream:
            stream.write('{"example": [')
            for number in range(count):
                item = {"question_id": number, "question": "Why is that so? " * 10, "answerable": number % 2 == 0}
                stream.write("," * (number > 0) + json.dumps(item))
            stream.write("]}")
        tracemalloc.start()
        assert sum(1 for _ in read_array(file, "example")) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert file.stat().st_size > 3 * MAX_ROW_CHARS
    assert peaks[1] < peaks[0] + 200_000
