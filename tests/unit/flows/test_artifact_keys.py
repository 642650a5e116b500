"""Artifacts of one key are versions of one another in Prefect, so no two things may share one."""

import string
from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.actions import ArtifactCreate

from flows.artifact_keys import Kind, artifact_key
from knowrl_core.config import RUN_NAME

KINDS = get_args(Kind)
OTHERS = {"knowrl-study", "knowrl-evaluation"}
"""Keys of what belongs to no run."""


@pytest.mark.parametrize(
    ("run", "start"),
    [("first", "knowrl-first-report"), ("a-2", "knowrl-a-2-report"), ("A_b.C", "knowrl-a-b-c-"), ("a_", "knowrl-a-")],
)
def test_keys_can_be_read(run, start):
    assert artifact_key(run, "report").startswith(start)


@pytest.mark.parametrize(
    "names",
    [
        ("x", "x-report", "x-stages", "x-progress", "x-iterations"),
        ("a.b", "a-b", "a_b", "A-b", "a-B", "a-b-", "a--b"),
        ("study", "evaluation", "Study"),
    ],
)
def test_names_that_are_much_alike(names):
    keys = [artifact_key(name, kind) for name, kind in product(names, KINDS)]
    assert len(set(keys)) == len(keys)
    assert not OTHERS & set(keys)


def test_a_name_cannot_be_chosen_to_be_the_key_of_another():
    inside = artifact_key("a.b", "report").removeprefix("knowrl-").removesuffix("-report")
    assert artifact_key(inside, "report") != artifact_key("a.b", "report")


@given(st.from_regex(RUN_NAME, fullmatch=True), st.sampled_from(KINDS))
def test_prefect_takes_every_key(name, kind):
    key = artifact_key(name, kind)
    assert ArtifactCreate(key=key).key == key
    assert set(key) <= {*string.ascii_lowercase, *string.digits, "-"}


@given(st.text("ab.-_A", min_size=1, max_size=4), st.text("ab.-_A", min_size=1, max_size=4))
def test_two_names_have_two_keys(one, other):
    assert (artifact_key(one, "report") == artifact_key(other, "report")) == (one == other)
