"""Find the tasks in a generated list. Never raises, whatever the text."""

import re
from typing import Final, Literal, NamedTuple

# Two kinds of mark: a number ("1.", "1)", "(1)", "**1.**", "Task 1:", in any script's digits) or a bullet.
_NUMBER: Final = re.compile(
    r"""(?P<indent>[ \t]*)(?:\#{1,6}[ \t]*)?(?P<bold>\*{0,2})
    (?:(?:task|question|instruction|example)[ \t]*)?[(\[#]?\d{1,4}
    (?:[.．、)\]）](?!\d)|:(?=\s|\*|\Z)|\*\*[.:)]|[ \t]+[-–—](?=\s))[.:]?\**[ \t]*""",  # noqa: RUF001 - other scripts
    re.IGNORECASE | re.VERBOSE,
)
_BULLET: Final = re.compile(r"(?P<indent>[ \t]*)[-*•‣◦▪●–—+](?:[ \t]+|\Z)")  # noqa: RUF001 - bullets that models use
_PREFIX: Final = re.compile(
    r"(?:\*\*|__)?(?:task|question|instruction|prompt)(?:[ \t]*\#?\d{1,4})?[ \t]*:(?:\*\*|__)?[ \t]*", re.IGNORECASE
)
# A line that belongs to the answer of a task, not to the task.
_ASIDE: Final = re.compile(
    r"[ \t]*(?:[-*•>][ \t]*)?[*_]{0,2}(?:answer|response|solution|explanation|reason|note|output)\b[^:\n]{0,20}:",
    re.IGNORECASE,
)
_BOLD: Final = re.compile(r"(?<!\w)(\*\*|__)(?=\S)(.+?)(?<=\S)\1(?!\w)")
_WRAPS: Final = (('"', '"'), ("“", "”"), ("'", "'"), ("‘", "’"), ("«", "»"), ("`", "`"), ("*", "*"), ("_", "_"))  # noqa: RUF001 - quotes that models use


class ParsedItem(NamedTuple):
    """One item of a list.

    Attributes:
        text: The task, white space folded, without list marks, quotes and bold marks around it.
        complete: False for a last item that was cut because the response reached its length.
    """

    text: str
    complete: bool


def parse_list(text: str, *, prefilled: bool, finish_reason: Literal["stop", "length"]) -> list[ParsedItem]:
    """Return the items of a generated list, in its order.

    Text before the first mark and after a blank line is commentary; a line below an item continues it. If there are
    numbers, bullets and indented numbers are part of their item; numbers may repeat or be out of order.

    Args:
        text: The response; any text at all.
        prefilled: The prompt ended with an open list mark: the response begins inside the first item.
        finish_reason: ``length`` marks the last item as incomplete, unless a line end closed it.
    """
    # Lone surrogates can stand in no file; they come out as U+FFFD, which a filter drops.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    lines = text.split("\n")
    mark = _NUMBER if any(_NUMBER.match(line) for line in lines[prefilled:]) else _BULLET
    items: list[list[str]] = []
    open_item = indent = None
    if prefilled:
        open_item, indent = [lines.pop(0)], 0
        items.append(open_item)
    for line in lines:
        found = mark.match(line)
        if found and (indent is None or len(found["indent"].expandtabs(4)) <= indent + 1):
            indent = len(found["indent"].expandtabs(4)) if indent is None else indent
            open_item = [line[found.end() :]]
            items.append(open_item)
        elif not line.strip() or _ASIDE.match(line):
            # Blank lines before an item's first word keep it open: some models break the line after the number.
            if open_item is not None and any(part.strip() for part in open_item):
                open_item = None
        elif open_item is not None:
            open_item.append(line)
    cut = finish_reason == "length" and not text.endswith("\n") and open_item is not None
    last = len(items) - 1
    return [ParsedItem(clean("\n".join(part)), not (cut and place == last)) for place, part in enumerate(items)]


def clean(text: str) -> str:
    """Take off what is around a task: white space, ``Task:``, bold marks, one pair of quotes."""
    text = " ".join(text.split())
    for _ in range(3):  # marks nest: **"Task: ..."**
        before = text
        text = _BOLD.sub(r"\2", _PREFIX.sub("", text, count=1) if _PREFIX.match(text) else text).strip()
        for left, right in _WRAPS:
            inner = text[1:-1]
            # Quotes inside would mean that the outer two are not a pair: 'a' or 'b'.
            if len(text) > 2 and text[0] == left and text[-1] == right and left not in inner and right not in inner:
                text = inner.strip()
        if text.count("**") == 1:  # the other one stood before the number: **1. Sing.**
            text = text.removeprefix("**").removesuffix("**").strip()
        if text == before:
            break
    return text
