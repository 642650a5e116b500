"""Fetches a model from the Hugging Face Hub, safetensors and text files only; from the local cache when offline."""

import logging
import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from knowrl_core.errors import InputError
from knowrl_core.models.quiet import quiet

log = logging.getLogger(__name__)

ALLOWED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")


def fetch(name: str, revision: str | None) -> tuple[Path, str]:
    """A Hub model's files in the local Hub cache.

    Args:
        name: Hub id, such as ``Qwen/Qwen2.5-7B-Instruct``.
        revision: Branch, tag or commit; None for the default branch.

    Returns:
        The folder and the commit that it holds.

    Raises:
        InputError: The model is unknown, gated, or neither cached nor reachable.
    """
    at = f" at revision {revision!r}" if revision else ""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    log.info("fetching model %s%s from the Hub or its local cache", name, at)
    try:
        with quiet():
            folder = snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(ALLOWED),
                ignore_patterns=["*/*"],  # some repositories keep a second copy in a subfolder
                local_files_only=offline,
            )
    except GatedRepoError as error:
        raise InputError(
            f"model {name!r}: the Hub gives it only to accounts that accepted its licence",
            hint=f"Accept it at https://huggingface.co/{name}, then set HF_TOKEN or run: hf auth login",
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"model {name!r}: the Hub has no revision {revision!r}",
            hint="Set model.revision to a branch, tag or commit of that model, or leave it out.",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"model {name!r}: tried the local Hub cache and the Hub; there is no such public model",
            hint="Check the spelling; a private model needs HF_TOKEN; a local folder is written as ./folder.",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        why = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
        raise InputError(
            f"model {name!r}{at}: tried a folder of that name (none), the local Hub cache (not there) and the Hub "
            f"({why})",
            hint="Give a local folder, use the alias smollm2-135m-instruct, which needs no network, or fetch it once "
            f"while online: hf download {name}",
        ) from error
    # The Hub cache names a snapshot's folder after its commit.
    return Path(folder), Path(folder).name
