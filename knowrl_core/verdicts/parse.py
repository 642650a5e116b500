"""Parse a free-text verdict, strictly.

A response counts if its last line that is not blank is ``Verdict: feasible`` or ``Verdict: infeasible``, and no other
line states another verdict. Case, Markdown marks and punctuation around it do not matter; anything else on the line
does: a negation ("not feasible"), both labels, a hedge or a reason make the response unparseable. A strict rule keeps
the reward clear: what earns it is exactly what the prompt asks for.
"""

import re
import unicodedata
from typing import Final

from knowrl_core.labels import FEASIBLE, INFEASIBLE, UNPARSEABLE, Label, Verdict

# List marks, quotes, Markdown and end marks; "-" also as a dash between "Verdict" and the label.
_DECORATION: Final = r"[\s*_`#>\"'“”‘’()\[\]{}.,;!|~-]*"  # noqa: RUF001 - quotes that models use
_VERDICT_LINE: Final = re.compile(rf"{_DECORATION}(?:(?:final|my)\s+)?verdict{_DECORATION}[:=](?P<said>.*)", re.DOTALL)
_LABEL: Final = re.compile(rf"{_DECORATION}(?P<label>infeasible|feasible){_DECORATION}")


def parse_verdict(text: str, prefill: str = "") -> Verdict:
    """Return what a response says; never raises.

    Args:
        text: The response.
        prefill: The beginning of the response that the prompt gave; its last line counts as part of the response.
    """
    full = unicodedata.normalize("NFKC", prefill.rpartition("\n")[2] + text).casefold()
    # Format signs such as zero-width spaces are invisible to a reader, so they may not decide.
    full = "".join(char for char in full if unicodedata.category(char) != "Cf")
    lines = [line for line in full.splitlines() if line.strip()]
    if not lines or (last := _stated(lines[-1])) is None:
        return UNPARSEABLE
    others = {_stated(line) for line in lines[:-1]} - {None}
    return last if last != UNPARSEABLE and others <= {last} else UNPARSEABLE


def _stated(line: str) -> Verdict | None:
    """The verdict that a line states; unparseable for a verdict line that is unclear, None for any other line."""
    found = _VERDICT_LINE.fullmatch(line)
    if found is None:
        return None
    label = _LABEL.fullmatch(found["said"])
    if label is None:
        return UNPARSEABLE
    stated: Label = INFEASIBLE if label["label"] == INFEASIBLE else FEASIBLE
    return stated
