"""A tiny random model for tests and the smoke profile: the same bytes on every machine, built in about a second."""

from pathlib import Path
from typing import Literal

from knowrl_core.models.cache import build_once

ALIAS = "tiny-random"
Architecture = Literal["llama", "qwen2"]

_LAYOUT = 1
"""Part of the cache name; raised when ``tiny_build.py`` would write other files."""


def tiny_folder(architecture: Architecture = "llama") -> tuple[Path, str]:
    """The tiny model in the cache, made on first use.

    Args:
        architecture: ``llama`` (tied embeddings) or ``qwen2`` (untied, with attention biases).

    Returns:
        The folder and the hash of its model files.
    """

    def build(folder: Path) -> None:
        from knowrl_core.models.tiny_build import write  # noqa: PLC0415 - PyTorch is needed on first use only

        write(folder, architecture)

    return build_once(f"{ALIAS}-{architecture}-v{_LAYOUT}", build)
