"""Consensus: from verdicts to labels, rewards, what is trained on, and the pool."""

from knowrl_core.consensus.anchors import anchor_tasks, build_anchors, draw_anchors
from knowrl_core.consensus.build import build_consensus
from knowrl_core.consensus.summary import summarise
from knowrl_core.consensus.vote import Tally, tally

__all__ = ["Tally", "anchor_tasks", "build_anchors", "build_consensus", "draw_anchors", "summarise", "tally"]
