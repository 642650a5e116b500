"""Where the files that ship with KnowRL are: profiles and seeds."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(*parts: str) -> Path:
    """Path of a shipped file, such as ``shipped("seeds", "probe.jsonl")``.

    In a checkout these folders stand beside the packages; a wheel carries them inside ``knowrl_core/_data``.
    """
    checkout = _PACKAGE.parent
    base = checkout if (checkout / "pyproject.toml").is_file() else _PACKAGE / "_data"
    return base.joinpath(*parts)
