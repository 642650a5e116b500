"""Whether a service answers: ``healthcheck.py URL [VARIABLE]``, where the variable holds ``user:password``."""

import base64
import os
import sys
import urllib.request


def main(url: str, credentials: str = "") -> int:
    """Ask once; 0 if the answer is a success.

    Args:
        url: Address, asked with GET.
        credentials: Name of the environment variable with ``user:password`` for basic authentication.
    """
    if not url.startswith("http://"):
        raise SystemExit(f"got {url!r}, expected an http address")
    request = urllib.request.Request(url)
    if credentials:
        secret = base64.b64encode(os.environ[credentials].encode()).decode()
        request.add_header("Authorization", f"Basic {secret}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return 0 if 200 <= answer.status < 300 else 1
    except OSError as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
