"""A copy of the repository in which documented commands are run, as a reader would run them in a clone.

What differs from a reader's machine is all here:

- Profile `cpu` has the values of `smoke` and one iteration, so the model is tiny and random; MLflow is off.
- A YAML file that a page shows is laid over profile `cpu`, so that it is small where it says nothing else.
- The model `smollm2-135m-instruct` is `tiny-random` for commands that name it.
- `git clone` does nothing, since the copy is there; `make` finds everything installed.
- `SelfAware.json` is there, with a few rows of its own in the authors' shape.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from knowrl_core.config import deep_merge
from tests.docs.pages import REPOSITORY, SHELL, Block, blocks, read

SUBSTITUTIONS = {
    "git clone REPOSITORY knowrl && cd knowrl": "true",
    "smollm2-135m-instruct": "tiny-random",
}
_SMALL = {
    "introspection": {"calls_per_label": 3},
    "evaluation": {"probe_limit": 8, "frozen_limit": 6},
    "tracking": {"enabled": False},
}
_MODULES = {"knowrl": "flows.cli.main", "pytest": "pytest", "prefect": "prefect", "mlflow": "mlflow"}
TIMEOUT = 600


class Scene:
    """The copy.

    Args:
        folder: Where it goes.
        env: Environment of the commands.
    """

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self._done: set[str] = set()
        self._copy()
        self._make_small()
        self._install()
        path = f"{folder / '.venv/bin'}{os.pathsep}{env['PATH']}"
        self.env = {**env, "PATH": path, "PYTHONPATH": str(folder), "KNOWRL_TRACEBACK": ""}

    def play(self, page: str) -> int:
        """Run the blocks of a page in their order; returns how many.

        Raises:
            AssertionError: One fails.
        """
        played = 0
        found = blocks(page, read(page))
        for block in found:  # what the commands of a page read may be shown below them
            if block.file and block.language not in ("python", "diff"):
                self._write(block)
        for block in found:
            if block.language == "diff" and block.is_run:
                self._change(block)
            elif block.language == "python" and block.file:
                self._write(block)
            elif block.is_run:
                self._run(block)
            else:
                continue
            played += 1
        return played

    def _copy(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            source, target = REPOSITORY / name, self.folder / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
        rows = [
            {"question_id": n, "question": text, "answer": [], "answerable": n % 2 == 0, "source": "test"}
            for n, text in enumerate(f"What is {word} of {n}?" for n, word in enumerate(["half", "the colour"] * 6))
        ]
        (self.folder / "SelfAware.json").write_text(json.dumps({"example": rows}))

    def _make_small(self) -> None:
        smoke = self.folder / "configs/smoke.yaml"
        data = yaml.safe_load(smoke.read_text())
        for section, values in _SMALL.items():
            data[section] = {**data.get(section, {}), **values}
        smoke.write_text(yaml.safe_dump(data))
        data["run"] = {"name": "cpu", "iterations": 1}
        (self.folder / "configs/cpu.yaml").write_text(yaml.safe_dump(data))

    def _install(self) -> None:
        bin_ = self.folder / ".venv/bin"
        bin_.mkdir(parents=True)
        programs = {"python": "", **{name: f"-m {module}" for name, module in _MODULES.items()}}
        for name, start in programs.items():
            (bin_ / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start} "$@"\n')
            (bin_ / name).chmod(0o755)
        for stamp in (".core", ".dev"):  # newer than what they depend on
            (self.folder / ".venv" / stamp).touch()

    def _write(self, block: Block) -> None:
        target = self.folder / str(block.file)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = block.text
        if block.language == "yaml":
            small = yaml.safe_load((self.folder / "configs/cpu.yaml").read_text())
            text = yaml.safe_dump(deep_merge(small, yaml.safe_load(text)))
        target.write_text(text)

    def _change(self, block: Block) -> None:
        """Apply a diff without line numbers: its old lines must be in the file once."""
        target = self.folder / str(block.file)
        lines = [line or " " for line in block.text.splitlines()]
        old = "\n".join(line[1:] for line in lines if line[0] != "+")
        new = "\n".join(line[1:] for line in lines if line[0] != "-")
        text = target.read_text()
        assert text.count(old) == 1, f"{block.place}: {text.count(old)} places in {block.file} have these lines:\n{old}"
        target.write_text(text.replace(old, new))

    def _run(self, block: Block) -> None:
        text = block.text
        if block.language == SHELL:
            # What an earlier page has run is not run again.
            lines = [line for line in text.splitlines() if _plain(line) not in self._done]
            self._done |= {_plain(line) for line in lines}
            text = "\n".join(lines)
        for old, new in SUBSTITUTIONS.items():
            text = text.replace(old, new)
        command = ["bash", "-euo", "pipefail", "-c", text]
        if block.language == "python":
            command = [sys.executable, "-c", text]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, f"{block.place}: exit code {done.returncode}\n{text}\n{done.stdout[-6_000:]}"


def _plain(line: str) -> str:
    """A command without its comment and the folder of its program."""
    return line.partition("  #")[0].strip().removeprefix(".venv/bin/")
