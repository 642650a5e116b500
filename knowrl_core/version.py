"""Which code and which libraries produced something."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "prefect", "mlflow", "pyarrow", "numpy", "tokenizers", "safetensors")


@cache
def code_version() -> str:
    """Version of KnowRL, with the commit when it runs from a checkout."""
    try:
        number = version("knowrl")
    except PackageNotFoundError:
        number = "unknown"
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return number
    try:
        commit = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],  # noqa: S607 - git is where the user has it
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return number
    return f"{number}+g{commit}"


@cache
def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version(), "knowrl": code_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
