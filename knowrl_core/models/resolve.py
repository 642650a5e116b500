"""From what the user calls a model to a local folder with safetensors, and its fingerprint."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from knowrl_core.config.system import ModelConfig
from knowrl_core.errors import InputError
from knowrl_core.models import smollm2, tiny
from knowrl_core.models.folder import check_folder, hash_folder
from knowrl_core.places import expanded

ALIASES = (smollm2.ALIAS, tiny.ALIAS)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine."""

    name: str
    """Short name for lineage: alias, Hub id or folder name."""
    path: Path
    """Folder with ``config.json``, ``*.safetensors`` and the tokenizer."""
    sha256: str
    """Hash of the model files (see :func:`~knowrl_core.models.folder.hash_folder`)."""
    revision: str | None = None
    """Hub commit, if it came from the Hub."""


def resolve_model(cfg: ModelConfig) -> ResolvedModel:
    """Find, fetch or build the model that the config names.

    In this order: an alias, a local folder, a Hub id. What looks like a path is never sent to the Hub.

    Raises:
        InputError: There is no such model, or it cannot be loaded safely.
    """
    name = cfg.path.strip()
    if name in ALIASES:
        if cfg.revision is not None:
            raise InputError(
                f"model.revision is {cfg.revision!r}, but model.path is the alias {name!r}, which has one "
                "revision only",
                hint="Leave model.revision out.",
            )
        path, digest = smollm2.smollm2_folder() if name == smollm2.ALIAS else tiny.tiny_folder()
        return ResolvedModel(name, path, digest)
    local = expanded(name)
    if name.startswith((".", "/", "~", "\\")) or local.exists():
        check_folder(local, name=name)
        resolved = local.resolve()
        return ResolvedModel(resolved.name, resolved, hash_folder(resolved))
    if not HUB_ID.fullmatch(name):
        raise InputError(
            f"model {name!r}: no such folder, and not a Hub id (owner/name)", hint=f"Aliases: {', '.join(ALIASES)}."
        )
    close = [alias for alias in ALIASES if alias.startswith(name.lower())]
    if "/" not in name and (close := close or difflib.get_close_matches(name.lower(), ALIASES, n=1, cutoff=0.6)):
        raise InputError(f"model {name!r}: no such folder or alias", hint=f"Did you mean {close[0]}?")
    from knowrl_core.models.hub import fetch  # noqa: PLC0415 - slow to import, and most runs do not need it

    path, commit = fetch(name, cfg.revision)
    check_folder(path, name=name)
    return ResolvedModel(name, path, hash_folder(path), commit)
