"""The services of ``docker-compose.yml`` as processes of this machine, for people without Docker and for tests.

    .venv/bin/python scripts/compose_local.py            until Control-C

Commands, environment, order and health checks are those of the file, with the variables of ``.env``; what a container
has of its own becomes a port of 127.0.0.1 and a folder below ``--state``. Needs PostgreSQL's programs (Debian:
``apt install postgresql``). Not the same as containers: no limits of memory, no users or file systems of their own.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from rich.console import Console
from rich.markup import escape

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from knowrl_core.worker.process import free_port
from scripts.compose_file import ComposeError, Service, read_env_file, read_services

REPOSITORY = Path(__file__).resolve().parents[1]
DATABASE = "postgres"
_WAYS_IN = (("local", ""), ("host", "127.0.0.1/32"))
START = 600.0
"""Seconds that a service has to become healthy; on a busy machine Prefect's server needs minutes."""

_out = Console(stderr=True, highlight=False)


class LocalCompose:
    """Services as processes.

    Args:
        state: Folder for data, logs and sockets; data stays there.
        variables: What the file takes from its environment.
        also: Services of a profile that are started as well, such as ``worker-control``.
        free_ports: Listen on free ports instead of the published ones.
        extra: Further environment of every service.
    """

    def __init__(
        self,
        state: Path,
        variables: Mapping[str, str],
        *,
        also: Collection[str] = (),
        free_ports: bool = False,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.state = state.absolute()
        self.services = read_services(REPOSITORY / "docker-compose.yml", variables, also=also)
        self.ports = {
            item.name: free_port() if free_ports or item.published is None else item.published
            for item in self.services.values()
            if item.port is not None
        }
        self._extra = dict(extra or {})
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for folder in (self.state, self.state / "home", self.state / "logs", self.state / "volumes"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        try:
            waited: set[str] = set()
            for name in self.services:  # those that do not need each other start at the same time
                for other in self.services[name].after:
                    if other in self.services and other not in waited:
                        self._await(other)
                        waited.add(other)
                self._launch(name)
            for name in self.services.keys() - waited:
                self._await(name)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a service: the machine's without what concerns the services, then its own."""
        machine = {key: text for key, text in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "PG"))}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{machine.get('PATH', '')}"
        own = {key: self._local(text, name, key) for key, text in self.services[name].environment.items()}
        folder = self.state / "home" / name
        folder.mkdir(parents=True, exist_ok=True)
        return {
            **machine,
            **own,
            **self._extra,
            "PATH": programs,
            "HOME": str(folder),
            "PREFECT_HOME": str(folder / "prefect"),
        }

    def start(self, name: str) -> None:
        """Start a service and wait until it is healthy, or, if others need its end, has ended well.

        Raises:
            ComposeError: It does not.
        """
        self._launch(name)
        self._await(name)

    def _launch(self, name: str) -> None:
        service = self.services[name]
        if name == DATABASE:
            self._start_database()
        else:
            command = [self._local(part, name) for part in service.command]
            self.processes[name] = self._spawn(name, command, self.environment(name))

    def _await(self, name: str) -> None:
        service = self.services[name]
        if any(item.after.get(name) == "service_completed_successfully" for item in self.services.values()):
            try:
                code = self.processes[name].wait(START)
            except subprocess.TimeoutExpired:
                raise ComposeError(f"service {name} does not end: see {self.log(name)}") from None
            del self.processes[name]
            if code:
                raise ComposeError(f"service {name} ended with {code}: see {self.log(name)}")
        elif service.healthcheck:
            self._wait(service)
        _out.print(f"{name} is up" + (f" on 127.0.0.1:{self.ports[name]}" if name in self.ports else ""))

    def stop(self) -> None:
        """End all services: at the same time those that no other needs any more."""
        left = set(self.services)
        while left:
            leaves = left - {other for name in left for other in self.services[name].after}
            self._end({name: self.processes.pop(name) for name in leaves if name in self.processes})
            left -= leaves

    def _end(self, processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
        for name, process in processes.items():
            # PostgreSQL's fast shutdown is SIGINT; its SIGTERM waits for every client to leave.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT if name == DATABASE else signal.SIGTERM)
        deadline = time.monotonic() + 20
        for name, process in processes.items():
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                _out.print(f"{name} does not end; it is killed")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def watch(self) -> None:
        """Start services again that end, as ``restart: unless-stopped`` says; until interrupted."""
        while True:
            time.sleep(2)
            for name, process in list(self.processes.items()):
                if process.poll() is not None and self.services[name].restart:
                    _out.print(f"{name} ended with {process.returncode}; it is started again")
                    self.start(name)

    def memory(self) -> dict[str, int]:
        """Bytes of memory that each service holds, shared pages counted by their share (PSS)."""
        found = {}
        for name, process in self.processes.items():
            root = psutil.Process(process.pid)
            found[name] = sum(item.memory_full_info().pss for item in [root, *root.children(recursive=True)])
        return found

    def log(self, name: str) -> Path:
        """Where a service writes what it prints."""
        return self.state / "logs" / f"{name}.log"

    def _start_database(self) -> None:
        data = self.state / "volumes" / DATABASE / "data"
        socket = self.state / "run"
        environment = {**self.environment(DATABASE), "LC_ALL": "C.UTF-8", "PGTZ": "UTC"}
        for folder in (data.parent, socket):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        user = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = [program("runuser"), "-u", DATABASE, "--"]
            for folder in (data.parent, socket):
                shutil.chown(folder, DATABASE)
            for folder in data.parents[1:]:
                if folder.is_relative_to(self.state):  # to be passed through, and not to be read
                    folder.chmod(0o711)
                elif not folder.stat().st_mode & 0o001:
                    raise ComposeError(
                        f"user {DATABASE}, as whom PostgreSQL runs under root, may not enter {folder}; choose another "
                        "folder with --state, or do not run this as root"
                    )
        new = not (data / "PG_VERSION").exists()
        if new:
            secret = data.parent / "password"
            secret.touch(mode=0o600)
            secret.write_text(environment["POSTGRES_PASSWORD"])
            if user:
                shutil.chown(secret, DATABASE)
            arguments = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"]
            done = subprocess.run(  # noqa: S603
                [*user, program("initdb"), "-D", str(data), f"--pwfile={secret}", *arguments],
                check=False, capture_output=True, text=True, env=environment, cwd="/",
            )  # fmt: skip
            secret.unlink()
            if done.returncode:
                raise ComposeError(f"initdb ended with {done.returncode}: {done.stderr.strip()}")
        # Also data that an earlier version made wants a password everywhere.
        rules = "".join(f"{kind} all all {where} scram-sha-256\n" for kind, where in _WAYS_IN)
        (data / "pg_hba.conf").write_text(rules)
        socket_only = [f"--unix_socket_directories={socket}", f"--port={self.ports[DATABASE]}"]
        command = [*user, program("postgres"), "-D", str(data), "--listen_addresses=127.0.0.1", *socket_only]
        self.processes[DATABASE] = self._spawn(DATABASE, command, environment)
        if new:
            reach = {
                "PGHOST": str(socket),
                "PGPORT": str(self.ports[DATABASE]),
                "PGUSER": "postgres",
                "PGPASSWORD": environment["POSTGRES_PASSWORD"],
            }
            ready = [program("pg_isready"), "--quiet"]
            self._until(lambda: not subprocess.call(ready, env={**environment, **reach}), DATABASE)  # noqa: S603
            subprocess.run(  # noqa: S603
                [str(REPOSITORY / "deploy" / "postgres-init.sh")],
                check=True, env={**environment, **reach}, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def _wait(self, service: Service) -> None:
        command = [self._local(part, service.name) for part in service.healthcheck]
        command[0] = program(command[0])
        if service.name == DATABASE:
            command += ["--port", str(self.ports[DATABASE])]
        environment = self.environment(service.name)

        def healthy() -> bool:
            return not subprocess.call(  # noqa: S603
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

        self._until(healthy, service.name)

    def _until(self, condition: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + START
        while not condition():
            if self.processes[name].poll() is not None or time.monotonic() > deadline:
                raise ComposeError(f"service {name} does not become healthy: see {self.log(name)}")
            time.sleep(0.3)

    def _spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - the commands of the compose file
                list(command), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env=dict(environment), cwd=REPOSITORY,
            )  # fmt: skip

    def _local(self, text: str, name: str, key: str = "") -> str:
        """What a text of the file means outside a container: hosts, ports and paths of this machine."""
        own = self.services[name]
        if text == "0.0.0.0":  # noqa: S104 - replaced, not bound
            return "127.0.0.1"
        for other in (own, *self.services.values()):  # several may have the same port: its own comes first
            if other.port is None:
                continue
            port = self.ports[other.name]
            if text == other.name and key.endswith("HOST"):
                return "127.0.0.1"
            if text == str(other.port) and (key.endswith("PORT") or (not key and other is own)):
                return str(port)
            host = rf"(?<![\w.-]){re.escape(other.name)}:{other.port}(?!\d)"
            text = re.sub(host, f"127.0.0.1:{port}", text)
            if other is own:
                text = re.sub(rf"127\.0\.0\.1:{other.port}(?!\d)", f"127.0.0.1:{port}", text)
        return self._place(text, own)

    def _place(self, text: str, own: Service) -> str:
        """A path inside a service's container as one of this machine; other texts as they are."""
        for volume, place in own.volumes.items():
            if text == place:
                folder = self.state / "volumes" / volume
                folder.mkdir(parents=True, exist_ok=True)
                return str(folder)
        bases = {"/app": REPOSITORY, "/cache": self.state / "volumes" / "cache", "/tmp": self.state / "home" / own.name}  # noqa: S108
        for place, base in bases.items():
            if text == place or text.startswith(f"{place}/"):
                return f"{base}{text.removeprefix(place)}"
        return text


def program(name: str) -> str:
    """A program's path; PostgreSQL's are not on the path in Debian.

    Raises:
        ComposeError: It is not installed.
    """
    if name == "python":
        return sys.executable
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which(name) or next(
        (str(path / name) for path in reversed(versions) if (path / name).exists()), None
    )
    if found is None:
        raise ComposeError(f"program {name} is not installed (Debian: apt install postgresql)")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the services and watch over them; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env-file", type=Path, default=REPOSITORY / ".env", help="the environment of the file (.env)")
    parser.add_argument("--also", nargs="*", default=[], help="services of a profile as well, such as worker-control")
    parser.add_argument("--state", type=Path, default=REPOSITORY / "runs" / "services", help="folder for data and logs")
    options = parser.parse_args(arguments)

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        if not options.env_file.is_file():
            raise ComposeError(f"{options.env_file}: no such file; `make env` writes one")
        variables = {**read_env_file(options.env_file), **os.environ}  # the shell's win, as with compose
        with LocalCompose(options.state, variables, also=options.also) as services:
            ports = services.ports
            _out.print(f"Prefect: http://127.0.0.1:{ports['prefect']}   MLflow: http://127.0.0.1:{ports['mlflow']}")
            _out.print("user knowrl of both; Control-C ends them")
            services.watch()
    except ComposeError as error:
        _out.print(f"[red]error:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
