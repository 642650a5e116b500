"""Seed files: good ones load unchanged, bad ones say what is wrong, nothing else is ever raised."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from knowrl_core.errors import InputError
from knowrl_core.seeds import SeedError, SeedTask, load_seed_file, load_seeds
from knowrl_core.seeds.model import normalise
from knowrl_core.seeds.parse import MAX_LINE_BYTES

GOOD = {"id": "a-1", "task": "Name a river in Spain.", "label": "feasible"}
WITH_TMP = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def problem_of(path: Path, label=None) -> str:
    with pytest.raises(SeedError) as caught:
        load_seed_file(path, label)
    return str(caught.value)


def test_a_plain_file_loads_in_order_with_defaults(tmp_path):
    path = write(
        tmp_path / "s.jsonl", GOOD, b"", GOOD | {"id": "a-2", "task": "  Name a lake.\n", "label": "infeasible"}
    )
    first, second = load_seed_file(path)
    assert (first.id, first.reason, first.form, first.pair) == ("a-1", "", None, "")
    assert (second.task, second.label) == ("Name a lake.", "infeasible")


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert load_seed_file(path)[0].id == "a-1"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "a", "label": "feasible"}, "field 'task': missing"),
        (GOOD | {"taks": "x"}, "field 'taks': unknown, expected one of id, task, label"),
        (GOOD | {"label": "maybe"}, "field 'label': got 'maybe', expected 'feasible' or 'infeasible'"),
        (GOOD | {"label": None}, "field 'label': got None"),
        (GOOD | {"form": "poem"}, "field 'form': got 'poem', expected 'instruction', 'question' or null"),
        (GOOD | {"id": "../x"}, "field 'id': got '../x', expected text that matches"),
        (GOOD | {"id": "a\n"}, "field 'id': got 'a\\n'"),
        (GOOD | {"id": "a" * 65}, "field 'id'"),
        (GOOD | {"task": " \n\t "}, "no visible character"),
        (GOOD | {"task": "\u200b\u200b"}, "field 'task': got '\\u200b\\u200b' (no visible character)"),
        (GOOD | {"task": "bell \x07"}, "(control character U+0007 at character 6)"),
        (GOOD | {"task": "x" * 4_001}, "... (4,001 characters), expected visible text of at most 4,000"),
        (GOOD | {"task": 3}, "field 'task': got 3, expected"),
        (GOOD | {"task": "half \ud800 pair"}, "field 'task'"),
        (GOOD | {"reason": "\x1b[31mred"}, "field 'reason': got '\\x1b[31mred'"),
        ([1, 2], "got [1, 2], expected a JSON object"),
        (b"{'id': 1}", "expected JSON:"),
        (b"\xff\xfe", "expected UTF-8"),
        (b"[" * 30_000, "nested too deeply"),
        (b'{"id": "a", "id": "b", "task": "x", "label": "feasible"}', "key 'id' stands twice"),
        (b"9" * 5_000, "expected JSON"),
    ],
)  # fmt: skip
def test_a_broken_row_is_named_with_file_line_and_field(tmp_path, row, expected):
    path = write(tmp_path / "s.jsonl", GOOD, row)
    message = problem_of(path)
    assert f"{path}:2: " in message
    assert expected in message
    assert message.isprintable() or "\n" in message
    assert all(char.isprintable() or char == "\n" for char in message)


def test_all_problems_are_listed_up_to_twenty(tmp_path):
    path = write(tmp_path / "s.jsonl", *[GOOD | {"id": f"a{i}", "label": i} for i in range(30)])
    message = problem_of(path)
    assert message.count("field 'label'") == 20
    assert "and 10 more problems" in message
    assert "knowrl seeds check" in message


def test_a_label_that_the_file_should_not_hold_is_an_error(tmp_path):
    assert "got 'feasible', expected 'infeasible'" in problem_of(write(tmp_path / "s.jsonl", GOOD), "infeasible")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(tmp_path, content):
    path = tmp_path / "s.jsonl"
    path.write_bytes(content)
    assert "got no task" in problem_of(path)


@pytest.mark.parametrize("name", ["missing.jsonl", "", "a\0b"])
def test_what_is_no_file_is_an_error(tmp_path, name):
    with pytest.raises(InputError, match="expected a file of JSON lines"):
        load_seed_file(tmp_path / name)


def test_a_huge_line_is_skipped_without_reading_it_whole(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"x" * (5 * MAX_LINE_BYTES) + b"\n" + json.dumps({"id": 1}).encode())
    message = problem_of(path)
    assert f"{path}:1: got a line of more than 65,536 bytes" in message
    assert f"{path}:2: field 'id': got 1" in message


def test_a_file_of_rubbish_is_given_up(tmp_path):
    with pytest.raises(SeedError) as caught:
        load_seed_file(write(tmp_path / "s.jsonl", *[b"rubbish"] * 5_000))
    assert len(caught.value.problems) < 1_100


def test_repeated_ids_and_texts_are_errors_within_a_file(tmp_path):
    again = GOOD | {"id": "b", "task": "name a  RIVER in Spain"}
    path = write(tmp_path / "s.jsonl", GOOD, GOOD | {"task": "Other."}, again)
    message = problem_of(path)
    assert f"{path}:2: field 'id': got 'a-1' again, expected it once; first at {path}:1" in message
    assert f"{path}:3: field 'task': got 'name a  RIVER in Spain' again" in message


def test_both_files_are_checked_against_each_other(tmp_path):
    yes = write(tmp_path / "yes.jsonl", GOOD)
    no = write(tmp_path / "no.jsonl", GOOD | {"id": "i-1", "label": "infeasible"})
    with pytest.raises(SeedError, match=r"again, expected it once; first at .*yes.jsonl:1 with label 'feasible'"):
        load_seeds(yes, no)
    no = write(tmp_path / "no.jsonl", GOOD | {"id": "i-1", "task": "Open my window.", "label": "infeasible"})
    assert [t.label for t in load_seeds(yes, no)] == ["feasible", "infeasible"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("A  b?", "a b", True), ("2+2", "2-2", False), ("?", "!", False), ("\uff21bc", "abc", True), ("...", "…", True)],
)
def test_normalise(one, other, same):
    assert (normalise(one) == normalise(other)) is same


@WITH_TMP
@given(content=st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_but_a_seed_error(tmp_path, content):
    path = tmp_path / "s.jsonl"
    path.write_bytes(content)
    with pytest.raises(SeedError) as caught:
        load_seed_file(path)
    assert all(char.isprintable() or char == "\n" for char in str(caught.value).replace(str(path), ""))


values = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x, max_size=3))


@WITH_TMP
@given(row=st.dictionaries(st.sampled_from([*SeedTask.model_fields, "other"]), values))
def test_arbitrary_objects_load_or_raise_a_seed_error(tmp_path, row):
    path = write(tmp_path / "s.jsonl", row)
    try:
        tasks = load_seed_file(path)
    except SeedError:
        return
    assert len(tasks) == 1


seed_tasks = st.builds(
    dict,
    id=st.from_regex(r"\A[A-Za-z0-9._:-]{1,64}\Z"),
    task=st.text(min_size=1, max_size=60),
    label=st.sampled_from(["feasible", "infeasible"]),
    reason=st.text(max_size=40),
    form=st.sampled_from([None, "instruction", "question"]),
)


@WITH_TMP
@given(row=seed_tasks)
def test_every_valid_task_round_trips(tmp_path, row):
    try:
        task = SeedTask.model_validate(row)
    except ValidationError:
        return
    path = tmp_path / "s.jsonl"
    path.write_text(task.model_dump_json() + "\n", encoding="utf-8")
    assert load_seed_file(path) == [task]
