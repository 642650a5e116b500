"""Text from anywhere in Markdown, whatever is in it."""

import re


def code(text: str) -> str:
    """Text as code."""
    return "`" + re.sub(r"[`\s]+", " ", text) + "`"


def plain(text: str) -> str:
    """Text whose signs mean nothing."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", re.sub(r"\s+", " ", text))
