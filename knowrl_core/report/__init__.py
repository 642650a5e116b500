"""What a run has to show."""

from knowrl_core.report.table import IterationRow, best_iteration, iteration_rows, probe_scores

__all__ = ["IterationRow", "best_iteration", "iteration_rows", "probe_scores"]
