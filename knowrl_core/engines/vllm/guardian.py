"""Run a program and be sure that nothing of it outlives the one who asked for it.

``python -m knowrl_core.engines.vllm.guardian PROGRAM ...`` reads its standard input to the end, which comes when the
parent closes it or dies in whatever way, and then ends the program's whole process group: first politely, then by
force. vLLM starts processes of its own, which do not notice the death of a killed parent.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Final

GRACE: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""


def main() -> int:
    """Run the program; returns its exit code."""
    process = subprocess.Popen(  # noqa: S603 - the program that the parent asks for
        sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True
    )

    def wait_for_the_parent() -> None:
        while os.read(0, 4096):
            pass
        _signal(process.pid, signal.SIGTERM)
        time.sleep(GRACE)
        _signal(process.pid, signal.SIGKILL)

    threading.Thread(target=wait_for_the_parent, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _signal(process.pid, signal.SIGTERM))
    code = process.wait()
    _signal(process.pid, signal.SIGKILL)  # what it left of its group
    return code if code >= 0 else 128 - code


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
