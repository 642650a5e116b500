"""Models: from a name to a verified local folder, and from a folder to a loaded policy.

What needs PyTorch is in :mod:`knowrl_core.models.load` and not imported here: finding a model must stay cheap.
"""

from knowrl_core.models.folder import hash_folder
from knowrl_core.models.resolve import ALIASES, ResolvedModel, resolve_model

__all__ = ["ALIASES", "ResolvedModel", "hash_folder", "resolve_model"]
