"""A model folder: what it must hold, and the fingerprint of what is in it."""

import hashlib
import json
from pathlib import Path

from knowrl_core.errors import InputError
from knowrl_core.storage.files import read_small, sha256_file

HASHED_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""Files that decide what a model computes: weights, configs, tokenizer, chat template."""

IGNORED = frozenset({"manifest.json", "knowrl.sha256"})
"""Bookkeeping files that may lie beside the weights without changing the model."""

_MOST_SHOWN = 8


def hash_folder(path: Path) -> str:
    """Hex sha256 over the sorted names and the sha256 of the model files in a folder (not its subfolders).

    Two folders with the same hash hold the same model, tokenizer and chat template, byte for byte. Time stamps and
    other files do not count.
    """
    digest = hashlib.sha256()
    for file in sorted(path.iterdir(), key=lambda file: file.name):
        if file.is_file() and file.suffix in HASHED_SUFFIXES and file.name not in IGNORED:
            digest.update(f"{file.name}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def check_folder(path: Path, *, name: str) -> None:
    """Refuse a folder that does not hold a loadable model.

    Args:
        path: The folder.
        name: What the user called the model, for the message.

    Raises:
        InputError: ``config.json`` or ``*.safetensors`` is missing, or ``config.json`` is no JSON object.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(
            f"model {name!r}: found {found} at {path}, expected a folder with config.json and *.safetensors",
            hint="Give the folder itself, or a Hub id such as HuggingFaceTB/SmolLM2-135M-Instruct.",
        )
    files = sorted(file.name for file in path.iterdir())
    shown = ", ".join(files[:_MOST_SHOWN]) + (
        f" and {len(files) - _MOST_SHOWN} more" if len(files) > _MOST_SHOWN else ""
    )
    if not any(file.endswith(".safetensors") for file in files):
        pickles = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        if pickles:
            raise InputError(
                f"model {name!r}: {path} holds only pickled weights ({', '.join(pickles[:3])}), expected *.safetensors",
                hint="Pickled weights can run code when they are loaded. Convert them: load the model with "
                "transformers in a place that you trust and call save_pretrained(folder).",
            )
        raise InputError(
            f"model {name!r}: no *.safetensors in {path}, which holds {shown or 'nothing'}",
            hint="Give a folder made by save_pretrained().",
        )
    if "config.json" not in files:
        raise InputError(
            f"model {name!r}: no config.json in {path}, which holds {shown}",
            hint="Give a folder made by save_pretrained(); a LoRA adapter has to be merged into its base model first.",
        )
    try:
        config = json.loads(read_small(path / "config.json").decode())
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {name!r}: {path / 'config.json'} cannot be read: {error}", hint="Fetch the model again."
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(
            f"model {name!r}: {path / 'config.json'} names no model_type, expected the config of a transformers model",
            hint="Give a folder made by save_pretrained().",
        )
