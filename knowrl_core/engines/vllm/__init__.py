"""The engine that talks to ``vllm serve``, a process of another Python environment."""

from knowrl_core.engines.vllm.engine import VllmEngine
from knowrl_core.engines.vllm.open import open_vllm

__all__ = ["VllmEngine", "open_vllm"]
