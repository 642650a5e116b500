"""Two ways to judge many tasks: the command at the end of a pipe, and the engine that it asks, alone."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, Literal

import psutil

from knowrl_core.config import Config, load_config
from knowrl_core.engines import build_engine
from knowrl_core.engines.base import GenerationEngine
from knowrl_core.labels import FEASIBLE, INFEASIBLE, UNPARSEABLE
from knowrl_core.models.load import setup_torch
from knowrl_core.models.resolve import resolve_model
from knowrl_core.prompts import Prompts, load_prompts
from knowrl_core.resources import shipped
from knowrl_core.seeds import load_seeds
from knowrl_core.verdicts.ask import Question, choose_request, generate_request, plan_asks

VERDICTS: Final = (FEASIBLE, INFEASIBLE, UNPARSEABLE)
WARM_UP: Final = 8
"""Tasks that a side answers before it is measured."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All that is the same for both sides; crosses to their processes."""

    model: str
    """Alias or folder."""
    mode: Literal["constrained", "free"]
    lines: int
    threads: int
    """Threads of each side; they run one after the other."""

    def overrides(self) -> list[str]:
        """The config fields that differ from the profile, as the command line takes them."""
        return [f"model.path={self.model}", f"verdict.mode={self.mode}", f"engine.threads={self.threads}"]


def tasks_of(count: int, first: int = 0) -> list[str]:
    """Seed tasks, each told apart by its number: the command asks what stands twice in a chunk once.

    Args:
        count: How many.
        first: Number of the first.
    """
    seeds = load_seeds(shipped("seeds", "feasible.jsonl"), shipped("seeds", "infeasible.jsonl"))
    return [f"{seeds[number % len(seeds)].task} (No. {number})" for number in range(first, first + count)]


class CommandSide:
    """``knowrl judge`` in a process, which is asked as long as its standard input is open."""

    label = "knowrl judge, lines from a pipe"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        begin = time.perf_counter()
        command = [sys.executable, "-m", "flows.cli.main", "judge", "--config=cpu", "--raw"]
        command += [f"--model={settings.model}", *(f"--set={item}" for item in settings.overrides())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer(tasks_of(1, settings.lines))
        self._loading = time.perf_counter() - begin

    def loading(self) -> float:
        """Seconds to the first answer."""
        return self._loading

    def warm_up(self) -> None:
        """A few tasks that are not measured."""
        self._answer(tasks_of(WARM_UP, self._settings.lines))

    def run(self) -> int:
        """All tasks; returns how many were answered with a verdict, in their place."""
        return self._answer(tasks_of(self._settings.lines))

    def _answer(self, tasks: Sequence[str]) -> int:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("knowrl judge has no pipes")
        # By a thread: the command waits when nobody reads its answers.
        writer = threading.Thread(target=_write, args=(self._process.stdin, tasks), daemon=True)
        writer.start()
        right = 0
        for number, task in enumerate(tasks):
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError(
                    f"knowrl judge ended with exit code {self._process.wait()} after {number} of {len(tasks)} answers"
                )
            answer = json.loads(line)
            right += (answer["id"], answer["task"]) == (number, task) and answer["verdict"] in VERDICTS
        writer.join()
        return right


def _write(target: IO[str], tasks: Sequence[str]) -> None:
    target.writelines(json.dumps({"id": number, "task": task}) + "\n" for number, task in enumerate(tasks))
    target.flush()


class EngineSide:
    """The engine of the same config, asked for the same prompts at once."""

    def __init__(self, engine: GenerationEngine, config: Config, prompts: Prompts, lines: int, loading: float) -> None:
        self.label = f"{engine.name}, one batch of requests"
        self._engine, self._config, self._prompts, self._loading = engine, config, prompts, loading
        self._requests = self._requests_of(tasks_of(lines))
        self._lines = lines

    def loading(self) -> float:
        """Seconds from the start of the process until the model was there."""
        return self._loading

    def warm_up(self) -> None:
        """A few tasks that are not measured."""
        self._ask(self._requests_of(tasks_of(WARM_UP, self._lines)))

    def run(self) -> int:
        """All prompts; returns how many tasks have answers to all of theirs."""
        return self._ask(self._requests) * self._lines // len(self._requests)

    def _requests_of(self, tasks: Sequence[str]) -> list[Any]:
        verdict = self._config.verdict
        asks = plan_asks(
            [Question(task, task) for task in tasks],
            self._prompts.verdict(verdict.mode),
            verdict,
            k=self._config.evaluation.k,
            run_seed=self._config.run.seed,
            iteration=0,
            stage="judge",
        )
        if verdict.mode == "free":
            return [generate_request(ask, verdict) for ask in asks]
        return [choose_request(ask) for ask in asks]

    def _ask(self, requests: Sequence[Any]) -> int:
        answer = self._engine.generate if self._config.verdict.mode == "free" else self._engine.choose
        return sum(1 for _ in answer(requests))


def build_command(settings: Settings) -> CommandSide:
    """The command."""
    return CommandSide(settings)


def build_engine_alone(settings: Settings) -> EngineSide:
    """The engine in this process."""
    config = load_config("cpu", settings.overrides())
    setup_torch(config.engine.threads)
    engine = build_engine(config.engine, resolve_model(config.model).path, device=config.model.device)
    loading = time.time() - psutil.Process().create_time()  # with the libraries, as the command has it
    return EngineSide(engine, config, load_prompts(config.prompts), settings.lines, loading)
