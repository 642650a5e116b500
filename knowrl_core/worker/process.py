"""A child process that cannot outlive its parent."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends (Linux; elsewhere the closed pipe must do).

    Args:
        parent: Process id of the expected parent; if it has gone already, this process exits at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def spawn(module: str, log: IO[bytes], *, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start ``python -m module`` in a session of its own, with pipes for its standard input and output.

    A session of its own keeps the terminal's Control-C from it: the parent decides how it ends.
    """
    return subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
        [sys.executable, "-m", module, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def end(process: subprocess.Popen[bytes], *, grace: float = 0.0) -> None:
    """End a process and everything in its session; wait until it is gone.

    Args:
        process: The leader of the session.
        grace: Seconds that it has to leave by itself once its standard input is closed.
    """
    if process.stdin:
        with contextlib.suppress(OSError):
            process.stdin.close()
    if grace:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back during a few steps that belong together; one that came arrives afterwards.

    Only for what is sure to end soon. A mask would not do: another thread would take the signal, and Python would still
    run the handler in this one. Outside the main thread, which alone runs handlers, there is nothing to hold.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda got, _frame: came.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("", 0))
        port: int = found.getsockname()[1]
        return port


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8_192))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    return ""
