"""Guards against collapse: what they see, and what follows from it."""

from knowrl_core.guards.decide import best_point, decide, point_of
from knowrl_core.guards.decision import DECISION, Decision, Point
from knowrl_core.guards.past import (
    GUARD_TABLE,
    Stop,
    find_stop,
    judge_iteration,
    last_evaluated,
    parent_of,
    read_decision,
    read_firings,
    standing_stop,
)
from knowrl_core.guards.signals import GUARDS, active, ask

__all__ = [
    "DECISION",
    "GUARDS",
    "GUARD_TABLE",
    "Decision",
    "Point",
    "Stop",
    "active",
    "ask",
    "best_point",
    "decide",
    "find_stop",
    "judge_iteration",
    "last_evaluated",
    "parent_of",
    "point_of",
    "read_decision",
    "read_firings",
    "standing_stop",
]
