"""Guards against collapse: what they see, and what follows from it."""

from knowrl_core.guards.decide import decide, point_of
from knowrl_core.guards.decision import DECISION, Decision, Point
from knowrl_core.guards.signals import GUARDS, active, ask

__all__ = ["DECISION", "GUARDS", "Decision", "Point", "active", "ask", "decide", "point_of"]
