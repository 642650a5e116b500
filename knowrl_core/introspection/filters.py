"""Filters that look at a candidate's text alone. Each has a name, which becomes the drop reason."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from knowrl_core.config.learning import FilterConfig
from knowrl_core.seeds.duplicates import words

ECHO_WORDS: Final = 8
"""Words in a row that a task may not share with the instructions of its prompt."""


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What filters may look at besides the text.

    Attributes:
        config: Their bounds.
        instructions: Text of the prompt without the examples.
    """

    config: FilterConfig
    instructions: str


Filter = Callable[[str, FilterContext], bool]
"""True drops the task."""

_SPECIAL = re.compile(
    r"<\|.*?\|>|<\||\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:unk|pad|eos|bos|start_of_turn|end_of_turn)>", re.I
)
_PLACEHOLDER = re.compile(
    r"[\[<{](?:insert|your|the|a|an|new|task|instruction|question|placeholder|example|another)\b[^\]>}]*[\]>}]", re.I
)
_VERDICT = r"(?:in|un|not\s+|non-)?feasible"
_LEAK = re.compile(
    rf"[(\[{{]\s*(?:label|verdict|answer)?\s*:?\s*{_VERDICT}\b"  # (infeasible) [feasible: ...]
    rf"|^\W*{_VERDICT}\s*[:\-–—]"  # Infeasible: ...  # noqa: RUF001
    rf"|(?:[:\-–—=]|->|→)\s*\W*{_VERDICT}\W*$"  # ... - infeasible  # noqa: RUF001
    rf"|\b(?:label|verdict)\s*[:=]\s*\W*{_VERDICT}\b"
    r"|[(\[][^)\]]*\b(?:cannot|can\s?not|can['’]t|unable|impossible|not\s+possible|i\s+can|beyond\s+my)\b[^)\]]*[)\]]"  # noqa: RUF001
    r"|\bas\s+an?\s+(?:ai|(?:large\s+)?language\s+model)\b",
    re.I,
)
_SAME_SIGN = re.compile(r"(\S)\1{11,}")


def control(text: str, _: FilterContext) -> bool:
    """Control characters, undecodable bytes, or special tokens spelled out."""
    return bool(_SPECIAL.search(text)) or any(
        char == "\ufffd" or unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn") for char in text
    )


def template_echo(text: str, context: FilterContext) -> bool:
    """Repeats the instructions, or leaves a placeholder to fill in."""
    if _PLACEHOLDER.search(text) or not any(char.isalnum() for char in text):
        return True
    own, told = words(text), f" {' '.join(words(context.instructions))} "
    # A short task must stand in the instructions as a whole; one or two words could do so by chance.
    runs = range(max(1, len(own) - ECHO_WORDS + 1)) if len(own) >= 3 else range(0)
    return any(f" {' '.join(own[i : i + ECHO_WORDS])} " in told for i in runs)


def label_leak(text: str, _: FilterContext) -> bool:
    """States the verdict itself. A task that merely uses the word ("Is it feasible to ...?") stays."""
    return bool(_LEAK.search(text))


def too_short(text: str, context: FilterContext) -> bool:
    """Fewer words than ``min_words``."""
    return len(text.split()) < context.config.min_words


def too_long(text: str, context: FilterContext) -> bool:
    """More words than ``max_words``."""
    return len(text.split()) > context.config.max_words


def keyword(text: str, context: FilterContext) -> bool:
    """Holds one of ``keywords`` as whole words, case ignored."""
    return bool(context.config.keywords) and bool(_keywords(context.config.keywords).search(text.casefold()))


def repetition(text: str, context: FilterContext) -> bool:
    """One sign many times in a row, or more than ``max_repetition`` of the word trigrams are repeats."""
    if _SAME_SIGN.search(text):
        return True
    own = words(text)
    trigrams = [tuple(own[i : i + 3]) for i in range(len(own) - 2)]
    return bool(trigrams) and 1 - len(set(trigrams)) / len(trigrams) > context.config.max_repetition


FILTERS: Final[dict[str, Filter]] = {
    "control": control,
    "template_echo": template_echo,
    "label_leak": label_leak,
    "too_short": too_short,
    "too_long": too_long,
    "keyword": keyword,
    "repetition": repetition,
}
"""In the order in which they are asked; the first that drops a task names the reason."""


def drop_reason(text: str, context: FilterContext) -> str | None:
    """Name of the first filter that drops a task, or None."""
    return next((name for name, drops in FILTERS.items() if drops(text, context)), None)


@lru_cache(maxsize=8)
def _keywords(keywords: tuple[str, ...]) -> re.Pattern[str]:
    # Longer ones first is not needed: only whether any matches counts. \b fails beside signs such as "C++".
    return re.compile("|".join(rf"(?<!\w){re.escape(word.casefold())}(?!\w)" for word in keywords))
