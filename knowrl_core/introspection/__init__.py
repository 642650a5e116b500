"""Introspection: the model writes tasks for itself, and what becomes of them."""

from knowrl_core.introspection.candidates import build_candidates
from knowrl_core.introspection.plan import PlannedCall, plan_calls

__all__ = ["PlannedCall", "build_candidates", "plan_calls"]
