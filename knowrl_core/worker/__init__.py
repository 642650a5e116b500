"""The model worker: a process of its own for everything that holds a model."""

from knowrl_core.worker.client import ModelWorker, RemoteEngine
from knowrl_core.worker.messages import EngineSpec
from knowrl_core.worker.pool import ShardedEngine, WorkerPool

__all__ = ["EngineSpec", "ModelWorker", "RemoteEngine", "ShardedEngine", "WorkerPool"]
