"""The fenced blocks of the documents, and what stands beside them.

Every block says what it is: `sh` (commands), `python`, `yaml`, `diff`, or another language that nobody runs, such as
`text`. Commands, Python and diffs are run by tests/e2e/test_documentation.py unless an HTML comment right before the
block says otherwise:

    <!-- not run: needs a GPU -->                       the reason; its commands are still checked
    <!-- run by: tests/e2e/test_fork.py::test_name -->  these tests (with commas) run them, and must name them
    <!-- run only: needs what the diff adds -->         run, but not checked against the code as it is

A block whose title, or first line as a comment, is a file name is that file: `# mine.yaml`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parents[2]
SHELL = "sh"
RUN = (SHELL, "python", "diff")
"""Languages of blocks that are run."""
_FENCE = re.compile(
    r"(?:<!--(?P<comment>(?:(?!-->).)*)-->[ \t]*\n+)?"
    r"^(?P<indent>[ \t]*)(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')
_NAMED = re.compile(r"#\s*(\S+\.(?:yaml|yml|py|jsonl|json))\s*$")
_NOTE = re.compile(r"\s*(not run|run by|run only):\s*(\S.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str
    file: str | None
    """The file that it is, if it says so."""
    note: tuple[Literal["not run", "run by", "run only"], str] | None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in RUN and (self.note is None or self.note[0] == "run only")


def pages() -> list[str]:
    """Paths of the documents in the repository."""
    docs = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").glob("*.md"))
    return ["README.md", "SECURITY.md", "seeds/README.md", *docs]


def read(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(page: str, text: str) -> list[Block]:
    """The blocks of a document."""
    found = []
    for match in _FENCE.finditer(text):
        info, content = match["info"].strip(), match["text"]
        if match["indent"]:
            content = re.sub(rf"^{match['indent']}", "", content, flags=re.MULTILINE)
        title = _TITLE.search(info) or _NAMED.match(content.partition("\n")[0])
        note = _NOTE.fullmatch(match["comment"] or "")
        line = text.count("\n", 0, match.start("fence")) + 1
        language = info.split(" ")[0]
        found.append(Block(page, line, language, content, title[1] if title else None, note.groups() if note else None))
    return found


def inline_code(text: str) -> Iterator[tuple[int, str]]:
    """Line and content of everything between single backticks, outside of blocks."""
    prose = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in re.finditer(r"(?<!`)`([^`]+)`(?!`)", prose):
        yield prose.count("\n", 0, match.start()) + 1, " ".join(match[1].split())
