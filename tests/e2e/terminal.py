"""A command on a terminal of its own, and what stands on its screen."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pyte

from tests.e2e.helpers import KNOWRL, environment_of


class Terminal:
    """Starts ``knowrl`` on a pseudo-terminal.

    Args:
        arguments: Of the command.
        home: Prefect's home.
        columns: Width.
        lines: Height.
        environment: More variables.
    """

    def __init__(self, *arguments, home, columns=100, lines=40, **environment):
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        base = {"TERM": "xterm-256color", "CI": "", **environment}

        def lead():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [*KNOWRL, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lead,  # noqa: PLW1509 - no threads here
            env=environment_of(home, **base),
        )
        os.close(theirs)
        self.seen = []
        """Every screen that was there after something was written."""

    def type(self, keys):
        """Press keys."""
        os.write(self._own, keys)

    @property
    def text(self):
        """What stands on the screen now."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def run(self, until=lambda: False, timeout=600):
        """Follow the screen until a condition holds, or to the end; gives the exit code, or None."""
        deadline = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < deadline, self.text
            if not select.select([self._own], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self._own, 65_536)
            except OSError:  # Linux's way to say that nobody has the other end open
                data = b""
            if not data:
                return self.process.wait(60)
            self._stream.feed(data)
            self.seen.append(self.text)
        return None
