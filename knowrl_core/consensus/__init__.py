"""Consensus: from verdicts to votes, rewards, what is trained on, and the pool."""

from knowrl_core.consensus.build import build_consensus
from knowrl_core.consensus.summary import summarise
from knowrl_core.consensus.vote import Tally, tally

__all__ = ["Tally", "build_consensus", "summarise", "tally"]
