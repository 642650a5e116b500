"""Write ``.env`` from ``.env.example`` with new secrets; a file that is there is left alone."""

import os
import secrets
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_SECRET = ("_PASSWORD", "_SECRET_KEY", "VLLM_API_KEY")


def new_env(example: str) -> str:
    """The text of ``.env``: every empty secret of the example gets 32 random bytes, as text that needs no quotes."""
    lines = []
    for line in example.splitlines():
        name, _, value = line.partition("=")
        empty = not value and name.isidentifier() and name.endswith(_SECRET)
        lines.append(f"{name}={secrets.token_urlsafe(32)}" if empty else line)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the file, readable by its owner alone; returns the exit code."""
    target = REPOSITORY / ".env"
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(new_env((REPOSITORY / ".env.example").read_text(encoding="utf-8")))
    except FileExistsError:
        sys.stderr.write(f"{target} is there already\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
