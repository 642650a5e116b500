"""Paths as people write them."""

from pathlib import Path

from knowrl_core.errors import InputError


def expanded(text: str | Path) -> Path:
    """A path with ``~`` and ``~user`` replaced by the home folder.

    Raises:
        InputError: There is no such user, or it cannot be a path.
    """
    if "\0" in str(text):
        raise InputError(f"path {str(text)!r}: got a zero byte, expected a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = str(text).partition("/")[0]
        raise InputError(
            f"path {str(text)!r}: got {user!r}, expected ~ or ~USER of a user on this machine",
            hint="Write ./~NAME for a folder whose name begins with ~.",
        ) from None
