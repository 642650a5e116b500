"""Ask a model of any tasks whether it can do them: verdict, confidence and votes, without a run.

from knowrl_core.config import load_config
from tasks.judge import ModelJudge

with ModelJudge(load_config("cpu", ["model.path=exported"])) as judge:
for answer in judge(["Name three rivers.", "Tell me what I had for breakfast."]):
print(answer.verdict, answer.confidence)
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Final, Self

from knowrl_core.config import Config
from knowrl_core.evaluation import EvalTask, predict
from knowrl_core.evaluation.calibration import Calibration, calibrated, fit_temperature
from knowrl_core.labels import FEASIBLE, INFEASIBLE, UNPARSEABLE
from knowrl_core.models.cache import cache_root
from knowrl_core.storage.files import read_small, sha256_json, write_atomic
from knowrl_core.storage.schemas import VerdictRecord
from knowrl_core.verdicts import judge_tasks
from tasks.evaluate import probe_set
from tasks.judging import engine_of
from tasks.prepare import prepare
from tasks.stage import engine_slice, verdict_slice

CHUNK: Final = 256
"""Most tasks that the engine is asked at a time."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model says of one task.

    Attributes:
        task: The task.
        verdict: ``feasible``, ``infeasible``, or ``unparseable`` where it does not decide.
        confidence: Probability that the verdict is right, calibrated if the judge is; None without a verdict.
        p_infeasible: What the verdict follows from: the exact probability of infeasible, or in free mode the share of
            votes; as the model gives it. None without a parseable vote.
        votes: Number of votes for each verdict.
        reason: In free mode what the model wrote in the first vote that agrees with the verdict.
    """

    task: str
    verdict: str
    confidence: float | None
    p_infeasible: float | None
    votes: dict[str, int]
    reason: str | None


class ModelJudge:
    """A model that is asked; a context, which holds the model worker.

    Args:
        config: ``model``, ``verdict``, ``evaluation.k``, ``prompts`` and ``engine`` count.
        calibrate: Fit a temperature on the probe first, once for a model and config: it is kept in the cache.
    """

    def __init__(self, config: Config, *, calibrate: bool = True) -> None:
        self._config, self._calibrate = config, calibrate
        self.calibration: Calibration | None = None

    def __enter__(self) -> Self:
        self._inputs = prepare(self._config)
        with ExitStack() as stack:
            self._engine, self._policy = stack.enter_context(engine_of(self._config, self._inputs))
            if self._calibrate:
                self.calibration = self._calibrated()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __call__(self, tasks: Iterable[str]) -> Iterator[Judgement]:
        """Judge tasks, in their order, chunk by chunk as they come.

        Args:
            tasks: Any number of them.
        """
        source = iter(tasks)
        while chunk := list(islice(source, CHUNK)):
            yield from self.chunk(chunk)

    def chunk(self, tasks: Sequence[str]) -> list[Judgement]:
        """Judge some tasks at once. What stands beside a task changes its answer by float noise only."""
        distinct = list(dict.fromkeys(tasks))
        names = [hashlib.sha256(task.encode("utf-8", "replace")).hexdigest() for task in distinct]
        # The label stands for nothing: judging is blind.
        asked = [EvalTask(name, task, FEASIBLE) for name, task in zip(names, distinct, strict=True)]
        answers = {answer.task: answer for answer in self._ask(asked)}
        return [answers[task] for task in tasks]

    def _ask(self, tasks: Sequence[EvalTask]) -> list[Judgement]:
        k = self._config.evaluation.k
        verdicts = judge_tasks(
            self._engine,
            [(task.id, task.task) for task in tasks],
            k=k,
            config=self._config.verdict,
            prompts=self._inputs.prompts,
            run_seed=self._config.run.seed,
            iteration=0,
            stage="judge",
            engine_name=self._engine.name,
            policy=self._policy,
        )
        texts: dict[tuple[str, str], VerdictRecord] = {}
        for vote in verdicts:
            texts.setdefault((vote.task_id, vote.verdict), vote)
        temperature = self.calibration.temperature if self.calibration else 1.0
        found = []
        for task, row in zip(tasks, predict("judge", tasks, verdicts, k=k), strict=True):
            sure = None
            if row.score is not None and row.predicted != UNPARSEABLE:
                p = calibrated(row.score, temperature)
                sure = p if row.predicted == INFEASIBLE else 1 - p
            first = texts.get((task.id, row.predicted))
            found.append(
                Judgement(
                    task=task.task,
                    verdict=row.predicted,
                    confidence=sure,
                    p_infeasible=row.score,
                    votes={
                        FEASIBLE: row.votes_feasible,
                        INFEASIBLE: row.votes_infeasible,
                        UNPARSEABLE: row.votes_unparseable,
                    },
                    reason=first.text.strip() if first and self._config.verdict.mode == "free" else None,
                )
            )
        return found

    def _calibrated(self) -> Calibration:
        """The temperature from the cache, or fitted on the probe now."""
        config = self._config
        key = sha256_json(
            {
                "model": self._inputs.model.sha256,
                "verdict": verdict_slice(config),
                "template": self._inputs.prompts.verdict(config.verdict.mode).sha256,
                "engine": engine_slice(config),
                "k": config.evaluation.k,
                "seed": config.run.seed,
                "probe": self._inputs.pins["files.probe"],
                "limit": config.evaluation.probe_limit,
            }
        )
        file = cache_root() / "calibration" / f"{key}.json"
        with suppress(OSError, ValueError, TypeError):  # not there, or not what it should be: it is fitted again
            return Calibration(**json.loads(read_small(file)))
        tasks = list(probe_set(self._inputs, config).tasks)
        answers = self._ask(tasks)
        known = [(row.p_infeasible, task.label == INFEASIBLE) for row, task in zip(answers, tasks, strict=True)]
        pairs = [(score, truth) for score, truth in known if score is not None]
        found = fit_temperature([score for score, _ in pairs], [truth for _, truth in pairs])
        with suppress(OSError):  # it is fitted again the next time
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, json.dumps(found._asdict()), durable=False)
        return found
