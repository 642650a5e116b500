"""A run of fakes: what stages read and write, without files, models or Prefect."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from knowrl_core.config import build_config
from knowrl_core.engines.base import ChooseResult
from knowrl_core.prompts import load_prompts
from knowrl_core.seeds import SeedTask
from knowrl_core.storage.layout import RunPaths
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.schemas import Candidate
from knowrl_core.worker import EngineSpec


def candidate(name, intended="feasible", *, kept=True):
    return Candidate(
        id=name, task=f"Do {name}", intended=intended, iteration=2, call=0, item=0, kept=kept,
        drop_reason=None if kept else "surplus", similar_to=None, similarity=None, few_shot_ids=[],
        prompt_sha256="h", engine="e", policy="p", seed=0, finish_reason="stop",
    )  # fmt: skip


@dataclass
class Worker:
    """Answers with one log-probability of infeasible a model folder, and notes who is asked what, in order."""

    logprobs: dict[str, float] = field(default_factory=dict)
    asked: list[tuple[str, list[str]]] = field(default_factory=list)

    def engine(self, spec):
        def choose(requests):
            self.asked.append((str(spec.folder), [request.turns[-1].content for request in requests]))
            infeasible = self.logprobs.get(str(spec.folder), -1.0)
            for _ in requests:
                yield ChooseResult(
                    token_ids=((1,), (2,)), token_logprobs=((-1.0,), (infeasible,)), prompt_token_ids=(5, 6)
                )

        return SimpleNamespace(name="fake", choose=choose)


class Writer:
    """Keeps what a stage writes."""

    def __init__(self):
        self.tables, self.metrics = {}, {}

    def write(self, name, record, rows):
        self.tables[name] = list(rows)


class Context:
    """Stands for ``RunContext``: tables and committed files are what a test says."""

    def __init__(self, settings=(), *, tables=None, history=None, parent=1):
        self.config = build_config({}, ["verdict.k=4", *settings])
        labels = ["feasible"] * 10 + ["infeasible"] * 10
        self.inputs = SimpleNamespace(
            seeds=[SeedTask(id=f"s{i}", task=f"Seed {i}", label=label) for i, label in enumerate(labels)],
            probe=[SeedTask(id="p0", task="seed 3", label="feasible")],
            prompts=load_prompts(self.config.prompts),
        )
        self.tables, self.history, self.seed = tables or {}, history or {}, 7
        self.paths, self.worker = RunPaths(Path("/runs"), "r"), Worker()
        self.progress = []
        self.reporter = SimpleNamespace(advance=lambda *now: self.progress.append(now), warning=print)
        self._parent = parent
        self.checkpoints = {0: [("external/model", "m0")]}

    def parent(self, iteration):
        return self._parent

    def read(self, key, name, record):
        return self.tables[f"{key}/{name}"]

    def ref(self, key, name):
        return FileRef(path=f"iterations/{key}/{name}", sha256="x")

    def checkpoint_refs(self, iteration):
        default = [(f"iterations/{iteration:03d}/update/checkpoint/model.safetensors", f"m{iteration}")]
        return [FileRef(path=path, sha256=sha) for path, sha in self.checkpoints.get(iteration, default)]

    def pin_refs(self, *names):
        return [FileRef(path=f"external/{name}", sha256="x") for name in names]

    def template_refs(self, templates):
        return [FileRef(path=f"external/prompts/{item.name}", sha256="x") for item in templates]

    def decision_refs(self, iteration):
        return [FileRef(path=f"iterations/{iteration - 1:03d}/evaluate/decision.json", sha256="x")]

    def policy_folder(self, iteration):
        return Path(f"/m{iteration}")

    def engine(self, key, spec):
        return self.worker.engine(spec)

    def engine_spec(self, iteration):
        return EngineSpec(
            folder=self.policy_folder(iteration), policy=f"it{iteration}", device="cpu", engine=self.config.engine
        )


@pytest.fixture
def make_context():
    return Context


@pytest.fixture
def make_writer():
    return Writer


@pytest.fixture
def make_candidate():
    return candidate
