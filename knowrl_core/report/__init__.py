"""What a run has to show."""

from knowrl_core.report.meter import Meter, StageProgress
from knowrl_core.report.standing import Ledger, Standing
from knowrl_core.report.table import IterationRow, best_iteration, iteration_rows, probe_scores

__all__ = [
    "IterationRow",
    "Ledger",
    "Meter",
    "StageProgress",
    "Standing",
    "best_iteration",
    "iteration_rows",
    "probe_scores",
]
