"""The messages that docs/troubleshooting.md explains are those of the program."""

import ast
import re

import pytest

from tests.docs.pages import REPOSITORY, read

PAGE = "docs/troubleshooting.md"
_ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def messages(text):
    """The quoted messages: first cells of the tables, and what stands in a sentence before `names`."""
    return [*_ROW.findall(text), *re.findall(r"^`([^`]+)` names", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def constants():
    """All texts in the code; what an f-string fills in parts it."""
    found = []
    for package in ("knowrl_core", "tasks", "flows"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(" ".join(node.value.split()))
    return "\n".join(found)


def unknown(text, constants):
    parts = [part.strip() for message in messages(text) for part in message.split("…")]
    return [part for part in parts if part not in constants]


def test_every_message_is_one_of_the_program(constants):
    text = read(PAGE)
    assert len(messages(text)) > 25
    assert unknown(text, constants) == []


def test_a_message_that_changed_is_found(constants):
    text = read(PAGE).replace("holds only pickled weights", "holds only pickled wheights")
    assert unknown(text, constants) == ["holds only pickled wheights"]
