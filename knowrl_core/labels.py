"""The two labels, and what a verdict can be."""

from typing import Final, Literal

Label = Literal["feasible", "infeasible"]
"""What a task is judged to be for the model itself."""

Verdict = Literal["feasible", "infeasible", "unparseable"]
"""One sampled self-assessment. ``unparseable`` is never a vote and earns no reward."""

FEASIBLE: Final = "feasible"
INFEASIBLE: Final = "infeasible"
UNPARSEABLE: Final = "unparseable"

LABELS: Final[tuple[Label, Label]] = (FEASIBLE, INFEASIBLE)
"""Both labels, in the order in which columns, prompts and reports list them."""

POSITIVE: Final[Label] = INFEASIBLE
"""Positive class of every F1, precision and recall (as SelfAware scores "unanswerable")."""
