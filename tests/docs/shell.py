"""From a block of shell lines to the programs that it calls."""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

_BETWEEN = {"&&", "||", ";", "|", "&"}
_REDIRECTIONS = {"<", ">", ">>", "<<", ">&"}
_DECLARATIONS = {"export"}


class Call(NamedTuple):
    """A call of a program."""

    words: list[str]

    @property
    def program(self) -> str:
        return self.words[0].removeprefix(".venv/bin/")


def calls(text: str) -> Iterator[Call]:
    """The calls of a block, without assignments, redirections and comments.

    Raises:
        ValueError: A quote is not closed.
    """
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        skip = False
        for token in [*lexer, ";"]:
            if skip:
                skip = False
            elif token in _REDIRECTIONS:
                skip = True
            elif token in _BETWEEN:
                if words:
                    yield Call(words)
                words = []
            elif words or not _is_assignment(token):
                words.append(token)


def _is_assignment(token: str) -> bool:
    name, equals, _ = token.partition("=")
    return token in _DECLARATIONS or bool(equals and name.isidentifier())
