"""Ways to answer the prompts of the sampling comparison: our transformers engine, and plain ``model.generate``."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from benchmarks.compare import Precision
from benchmarks.sampling_prompts import LABELS, NEW_TOKENS, Workload, choose_requests, generate_requests, prompts_of
from knowrl_core.config.system import EngineConfig, VllmConfig
from knowrl_core.engines import build_engine
from knowrl_core.engines.base import GenerationEngine, Turn
from knowrl_core.engines.chat import encode_continuation, render
from knowrl_core.models.load import load_policy, load_tokenizer, pick_dtype, setup_torch


@dataclass(frozen=True, slots=True)
class Settings:
    """All that is the same for the sides of a run; crosses to their processes."""

    model: Path
    """Folder of the policy."""
    precision: Precision
    threads: int
    """Threads of each side; they run one after the other."""
    prompts: int
    k: int
    """Responses a prompt."""
    seed: int
    token_budget: int
    """Tokens of a batch of our engine."""
    plain_prompts: int
    """Prompts of a batch of plain generate; 0 takes them all at once."""
    vllm_python: Path
    """Interpreter of the environment that holds vLLM."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What came out."""

    responses: int
    tokens: int
    """Tokens of the responses, the end of turn included."""


class PromptSide(ABC):
    """One way to answer the prompts."""

    def __init__(self, label: str, settings: Settings) -> None:
        self.label, self._settings = label, settings

    def warm_up(self) -> None:
        """Two prompts of each workload."""
        for workload in NEW_TOKENS:
            self._answer(workload, 2)

    def run(self, workload: Workload) -> Answers:
        """All prompts of a workload."""
        return self._answer(workload, self._settings.prompts)

    @abstractmethod
    def _answer(self, workload: Workload, count: int) -> Answers:
        """The first prompts of a workload."""


class EngineSide(PromptSide):
    """A generation engine of ours, asked as the stages ask it."""

    def __init__(self, label: str, engine: GenerationEngine, settings: Settings) -> None:
        super().__init__(label, settings)
        self._engine = engine

    def _answer(self, workload: Workload, count: int) -> Answers:
        prompts, k = prompts_of(workload, count), self._settings.k
        if workload == "constrained":
            # A drawn verdict has the tokens of its label; half of each is as good a guess as any.
            scored = list(self._engine.choose(choose_requests(prompts)))
            tokens = sum(sum(len(ids) for ids in result.token_ids) * k // len(LABELS) for result in scored)
            return Answers(len(scored) * k, tokens)
        results = list(self._engine.generate(generate_requests(workload, prompts, k, self._settings.seed)))
        samples = [sample for result in results for sample in result.samples]
        return Answers(len(samples), sum(len(sample.token_ids) for sample in samples))


class GenerateSide(PromptSide):
    """``model.generate(num_return_sequences=k)`` on left-padded batches, as its documentation shows it.

    Constrained verdicts follow the label strings through ``prefix_allowed_tokens_fn``.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: Settings) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._batch = settings.plain_prompts or settings.prompts
        super().__init__(f"model.generate, {self._batch} prompts a batch", settings)
        self._labels = [tuple(encode_continuation(tokenizer, text)) for text in LABELS]
        self._pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)

    def _answer(self, workload: Workload, count: int) -> Answers:
        prompts = prompts_of(workload, count)
        torch.manual_seed(self._settings.seed)
        counts = [
            self._generate(workload, prompts[first : first + self._batch]) for first in range(0, count, self._batch)
        ]
        return Answers(count * self._settings.k, sum(counts))

    def _generate(self, workload: Workload, prompts: Sequence[tuple[Turn, ...]]) -> int:
        ids = [render(self._tokenizer, turns) for turns in prompts]
        width = max(map(len, ids))
        tokens = torch.tensor([[self._pad] * (width - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        constrained = workload == "constrained"
        longest = max(map(len, self._labels))
        with torch.inference_mode():
            output = self._model.generate(
                tokens,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    num_return_sequences=self._settings.k,
                    max_new_tokens=longest + 1 if constrained else NEW_TOKENS[workload],
                    eos_token_id=self._tokenizer.eos_token_id,
                    pad_token_id=self._pad,
                ),
                **({"prefix_allowed_tokens_fn": partial(self._allowed, width)} if constrained else {}),
            )
        return sum(_length(row, int(self._tokenizer.eos_token_id), constrained) for row in output[:, width:].tolist())

    def _allowed(self, width: int, _row: int, tokens: torch.Tensor) -> list[int]:
        said = tuple(tokens[width:].tolist())
        follow = {label[len(said)] for label in self._labels if label[: len(said)] == said and len(label) > len(said)}
        return sorted(follow) or [int(self._tokenizer.eos_token_id)]


def _length(row: list[int], end: int, constrained: bool) -> int:
    """Tokens of a response up to its end; of a constrained one, without it: the label is the whole verdict."""
    if end not in row:
        return len(row)
    return row.index(end) + (0 if constrained else 1)


def build_ours(settings: Settings) -> EngineSide:
    """Our transformers engine."""
    setup_torch(settings.threads)
    config = EngineConfig(dtype=settings.precision, threads=settings.threads, token_budget=settings.token_budget)
    engine = build_engine(config, settings.model, device="cpu")
    return EngineSide(f"transformers engine, {settings.token_budget} tokens a batch", engine, settings)


def build_vllm(settings: Settings) -> EngineSide:
    """VLLM on the CPU, through our engine: a server of our own."""
    setup_torch(settings.threads)
    vllm = VllmConfig(python=str(settings.vllm_python))
    config = EngineConfig(kind="vllm", dtype=settings.precision, threads=settings.threads, vllm=vllm)
    log = Path(tempfile.mkdtemp(prefix="knowrl-vllm-")) / "vllm.log"
    engine = build_engine(config, settings.model, device="cpu", log=log)
    return EngineSide("vLLM through our engine", engine, settings)


def build_plain(settings: Settings) -> GenerateSide:
    """Plain generate, on the same weights in the same precision."""
    torch.set_num_threads(settings.threads or setup_torch(0))
    model = load_policy(settings.model, device="cpu", dtype=pick_dtype(settings.precision, torch.device("cpu")))
    return GenerateSide(model, load_tokenizer(settings.model), settings)
