"""The faults: what each one does to a run, and what puts the machine right again afterwards."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from benchmarks.fault_scene import RUN, TMPFS_MB, Scene

Process = subprocess.Popen[bytes]


class UnavailableError(Exception):
    """This machine cannot play the fault."""


class Fault(ABC):
    """One fault of one round. It draws what it hits from the round's own random numbers."""

    damages = False
    """It may spoil what was committed."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene, self.rng = scene, rng
        self.detail = ""
        self.environment: dict[str, str] = {}
        self.prefix: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - most leave nothing to be undone
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @abstractmethod
    def strike(self, process: Process) -> None:
        """Let it happen."""

    def heal(self) -> None:  # noqa: B027 - most leave nothing to be healed
        """Put the machine right again; what the run itself lost stays lost."""

    def victim(self, process: Process) -> psutil.Process | None:
        """Any process of the run's tree."""
        tree = sorted(self.scene.tree(process.pid), key=lambda item: item.pid)
        return self.rng.choice(tree) if tree else None


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[1:4])[-60:] or process.name()
    except psutil.Error:
        return "gone"


class Kill(Fault):
    """SIGKILL to one process of the tree."""

    number = signal.SIGKILL

    def strike(self, process: Process) -> None:
        """Send it."""
        victim = self.victim(process)
        if victim is not None:
            self.detail = f"{self.number.name} to {_name(victim)}"
            try:
                victim.send_signal(self.number)
            except psutil.Error:
                self.detail += " (gone)"


class Terminate(Kill):
    """SIGTERM to the command."""

    number = signal.SIGTERM

    def victim(self, process: Process) -> psutil.Process | None:
        """The command itself."""
        return psutil.Process(process.pid) if process.poll() is None else None


class Freeze(Fault):
    """SIGSTOP to one process of the tree for a while."""

    def strike(self, process: Process) -> None:
        """Stop it and let it go on."""
        victim = self.victim(process)
        if victim is None:
            return
        seconds = self.rng.uniform(0.5, 8.0)
        self.detail = f"{seconds:.1f} s, {_name(victim)}"
        try:
            victim.suspend()
            time.sleep(seconds)
            victim.resume()
        except psutil.Error:
            self.detail += " (gone)"


class FullDisk(Fault):
    """The file system of the root is full but for some kilobytes."""

    def __enter__(self) -> Self:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "knowrl", str(self.scene.root)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.scene.root)], check=False)  # noqa: S607

    def strike(self, process: Process) -> None:  # noqa: ARG002
        """Fill it."""
        left = self.rng.randrange(0, 400) * 1024
        free = shutil.disk_usage(self.scene.root).free
        self.detail = f"{left // 1024} KB left"
        with (self.scene.root / "ballast").open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, free - left))
            except OSError:  # the run took some of it meanwhile
                self.detail += " or less"

    def heal(self) -> None:
        """Make room."""
        (self.scene.root / "ballast").unlink(missing_ok=True)


class ReadOnly(Fault):
    """The run's folder may not be written to any more."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        super().__init__(scene, rng)
        if os.geteuid() == 0:  # whom modes do not stop
            if shutil.which("setpriv") is None:
                raise UnavailableError("setpriv is not there, and modes do not stop root")
            self.prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--")

    def strike(self, process: Process) -> None:  # noqa: ARG002
        """Take the right to write from all of its folders."""
        run = self.scene.root / RUN
        folders = [run, *(path for path in run.rglob("*") if path.is_dir())] if run.exists() else [self.scene.root]
        self.detail = f"{len(folders)} folders"
        for folder in folders:
            with suppress(FileNotFoundError):  # a stage was committed meanwhile
                folder.chmod(0o555)

    def heal(self) -> None:
        """Give it back."""
        for folder in (self.scene.root, *self.scene.root.rglob("*")):
            if folder.is_dir():
                folder.chmod(0o755)


class Damage(Fault):
    """The run is killed, and one of its committed files is altered or cut."""

    damages = True

    def strike(self, process: Process) -> None:
        """Kill all of it, then spoil a file."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        files = sorted(
            path
            for folder in (self.scene.root / RUN).glob("iterations/*/[!.]*")
            for path in folder.rglob("*")
            if path.is_file() and path.stat().st_size
        )
        if not files:
            return  # nothing was committed yet, so nothing was damaged
        path = self.rng.choice(files)
        self.detail = f"{type(self).__name__.lower()} {path.relative_to(self.scene.root / RUN / 'iterations')}"
        self.spoil(path)

    @abstractmethod
    def spoil(self, path: Path) -> None:
        """Alter the file."""


class BitFlip(Damage):
    """One bit of a committed file."""

    def spoil(self, path: Path) -> None:
        """Flip it."""
        content = bytearray(path.read_bytes())
        content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
        path.write_bytes(content)


class Truncate(Damage):
    """The end of a committed file."""

    def spoil(self, path: Path) -> None:
        """Cut it off."""
        os.truncate(path, self.rng.randrange(path.stat().st_size))


class ServerDown(Fault):
    """A server is killed, and started again some seconds later."""

    which: str

    def strike(self, process: Process) -> None:  # noqa: ARG002
        """Kill it, and start it again in the background."""
        server = getattr(self.scene, self.which)
        seconds = self.rng.uniform(1.0, 15.0)
        self.detail = f"{seconds:.0f} s"
        server.kill()

        def restart() -> None:
            time.sleep(seconds)
            server.start()

        self._thread = threading.Thread(target=restart)
        self._thread.start()

    def heal(self) -> None:
        """Wait until it is back."""
        self._thread.join()


class MlflowDown(ServerDown):
    """MLflow's server."""

    which = "mlflow"


class PrefectDown(ServerDown):
    """Prefect's server."""

    which = "prefect"


class ClockStep(Fault):
    """The clock jumps by up to a day, forwards or backwards."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        super().__init__(scene, rng)
        compiler, library = shutil.which("cc"), scene.folder / "clock_step.so"
        if compiler is None:
            raise UnavailableError("a C compiler is not there")
        if not library.exists():
            source = Path(__file__).with_name("clock_step.c")
            subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        self._file = scene.folder / "clock"
        self._set(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_STEP_FILE": str(self._file)}

    def strike(self, process: Process) -> None:  # noqa: ARG002
        """Let it jump."""
        step = self.rng.choice([-1, 1]) * self.rng.randrange(60, 86_400)
        self.detail = f"{step:+d} s"
        self._set(step)

    def _set(self, step: int) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # in place: the run has it mapped
            file.write(step.to_bytes(8, sys.byteorder, signed=True))


KINDS: Final[dict[str, Callable[[Scene, random.Random], Fault]]] = {
    "kill": Kill,
    "term": Terminate,
    "freeze": Freeze,
    "full-disk": FullDisk,
    "read-only": ReadOnly,
    "bit-flip": BitFlip,
    "truncate": Truncate,
    "mlflow-down": MlflowDown,
    "prefect-down": PrefectDown,
    "clock-step": ClockStep,
}
