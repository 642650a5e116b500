"""Guards against collapse: what they see, and what follows from it."""

from knowrl_core.guards.decision import Decision, Point

__all__ = ["Decision", "Point"]
