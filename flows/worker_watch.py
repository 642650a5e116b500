"""A flow run ends with the worker that started it.

The worker alone hears from the server that a flow run was cancelled, and looks after its output. A flow run that
outlived its worker would be one that nobody can stop, and its run could not be started again until it is done.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from flows.remote import is_remote

SECONDS: Final = 5.0
"""Time between two looks."""


@contextmanager
def ends_with_its_worker(seconds: float = SECONDS) -> Iterator[None]:
    """Send this process SIGTERM when its parent is gone; on the command line nothing is watched.

    SIGTERM is what Prefect sends as well: what is committed stands, and the flow run is Crashed.

    Args:
        seconds: Time between two looks.
    """
    if not is_remote():
        yield
        return
    parent, done = os.getppid(), threading.Event()

    def watch() -> None:
        # The parent's number changes when it ends: the process is handed on to another one.
        while not done.wait(seconds):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="knowrl-worker-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()
