"""The rollouts that ``rl_update.py`` runs every side on: deterministic from a seed, nothing kept on disk.

Two kinds. ``template``: the project's own verdict prompt for seed tasks, with sampled responses; the prompts share
their beginning, as they do in a run. ``distinct``: random words of the seed tasks, where no two prompts and no two
responses to a prompt begin with the same token.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from knowrl_core.config.system import PromptsConfig
from knowrl_core.engines.base import GenerateRequest, Turn
from knowrl_core.engines.chat import render
from knowrl_core.engines.transformers_engine import TransformersEngine
from knowrl_core.prompts import VIEWS, load_prompts, verdict_variables
from knowrl_core.resources import shipped
from knowrl_core.rl.advantages import Penalty, RolloutBatch, algorithm
from knowrl_core.rl.experience import Experience, Floats
from knowrl_core.rl.rollout import PromptGroup, Rollout, Verdict
from knowrl_core.rng import derive_seed, stream

Kind = Literal["template", "distinct"]
Tokens = tuple[int, ...]
Group = tuple[Tokens, tuple[Tokens, ...]]
"""A prompt and its responses."""

PROMPT_TOKENS: Final = (100, 140)
RESPONSE_TOKENS: Final = (4, 16)
NOISE: Final = 0.1
"""Standard deviation by which old and reference log-probabilities differ from the policy's: so clip and KL penalty
have something to do."""

_INSTRUCTION: Final = ' Write a line "Reason:" with one short sentence, then a last line "Verdict:" with the label.'
_PREFILL: Final = "Reason:"


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimizer step computed."""

    loss: float
    """Clipped policy loss, mean over the step's response tokens."""
    grad_norm: float
    """Global L2 norm of the gradient before clipping."""


@dataclass(frozen=True, slots=True)
class RolloutSet:
    """What every side gets: the same tokens, advantages and old log-probabilities, as numbers."""

    kind: Kind
    rollouts: tuple[Rollout, ...]
    """One a prompt, by ascending length of the prompt: so micro-batches of any size have little padding."""
    advantages: Floats
    """[N] of each response token, the same for all tokens of a verdict."""
    old: Floats
    """[N] log-probabilities that the ratios are taken to."""
    reference: Floats
    """[N] log-probabilities of a reference, for runs with a KL penalty."""

    @property
    def sequences(self) -> list[tuple[Tokens, Tokens]]:
        """Prompt and response of each verdict, in the order of the flat arrays."""
        return [
            (group.prompt_token_ids, verdict.response_token_ids)
            for rollout in self.rollouts
            for group in rollout.prompts
            for verdict in group.verdicts
        ]

    @property
    def tokens(self) -> int:
        """Tokens of all sequences, each with its prompt, without padding: the unit of tokens per second."""
        return sum(len(prompt) + len(response) for prompt, response in self.sequences)


def build_rollouts(model: Any, tokenizer: Any, kind: Kind, *, prompts: int, k: int, seed: int) -> RolloutSet:
    """Make the prompts, sample the responses, score them.

    Args:
        model: The policy in float32.
        tokenizer: Its tokenizer.
        kind: Which rollouts.
        prompts: Number of prompts.
        k: Verdicts a prompt.
        seed: Seed of everything that is random.
    """
    make = _template_groups if kind == "template" else _distinct_groups
    groups = sorted(make(model, tokenizer, prompts, k, seed), key=lambda group: len(group[0]))
    rng = stream(seed, kind, "rewards")
    rollouts = tuple(
        _rollout(f"task-{i:03d}", group, _score(model, group), rng.integers(0, 2, k).tolist())
        for i, group in enumerate(groups)
    )
    data = Experience.of(rollouts)
    batch = RolloutBatch(
        rewards=data.rewards, lengths=data.lengths, tasks=data.task, policy=data.engine, reference=None
    )
    old, reference = (
        data.engine + stream(seed, kind, name).normal(0.0, NOISE, data.n_tokens) for name in ("old", "reference")
    )
    return RolloutSet(kind, rollouts, algorithm("grpo")(batch, Penalty(0.0)), old, reference)


def _rollout(task_id: str, group: Group, logprobs: Sequence[Sequence[float]], rewards: Sequence[int]) -> Rollout:
    prompt, responses = group
    verdicts = tuple(
        Verdict(sample=i, response_token_ids=response, engine_logprobs=tuple(values), reward=reward)
        for i, (response, values, reward) in enumerate(zip(responses, logprobs, rewards, strict=True))
    )
    return Rollout(task_id=task_id, prompts=(PromptGroup(prompt_token_ids=prompt, verdicts=verdicts),))


@torch.no_grad()
def _score(model: Any, group: Group) -> list[list[float]]:
    """Log-probability of each response token. The prompt is computed once; padding comes after what is scored."""
    prompt, responses = group
    width = max(map(len, responses))
    ids = torch.tensor([[*response, *[0] * (width - len(response))] for response in responses])
    first = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
    first.past_key_values.batch_repeat_interleave(len(responses))
    later = model(ids[:, :-1], past_key_values=first.past_key_values, use_cache=True)
    logits = torch.cat([first.logits.expand(len(responses), -1, -1), later.logits], dim=1)
    logprobs = torch.log_softmax(logits, dim=-1).gather(2, ids[:, :, None])[:, :, 0].tolist()
    return [values[: len(response)] for values, response in zip(logprobs, responses, strict=True)]


def _seed_tasks() -> list[str]:
    lines = [
        line
        for name in ("feasible", "infeasible", "paired")
        for line in shipped("seeds", f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [str(json.loads(line)["task"]) for line in lines]


def _template_groups(model: Any, tokenizer: Any, prompts: int, k: int, seed: int) -> list[Group]:
    rng = stream(seed, "template")
    template = load_prompts(PromptsConfig()).verdict("constrained")
    view = VIEWS["feasible_first"]
    chosen: list[tuple[Turn, ...]] = []
    tasks = _seed_tasks()
    for place in rng.permutation(len(tasks)):
        system, *middle, last = template.render(**verdict_variables(tasks[place], view))
        turns = (
            system.model_copy(update={"content": system.content + _INSTRUCTION}),
            *middle,
            last.model_copy(update={"content": _PREFILL}),
        )
        if PROMPT_TOKENS[0] <= len(render(tokenizer, turns)) <= PROMPT_TOKENS[1]:
            chosen.append(turns)
        if len(chosen) == prompts:
            break
    else:
        raise SystemExit(f"only {len(chosen)} seed tasks give prompts of {PROMPT_TOKENS} tokens, expected {prompts}")
    requests = [
        GenerateRequest(turns=turns, n=k, seed=derive_seed(seed, "template", i), max_new_tokens=RESPONSE_TOKENS[1])
        for i, turns in enumerate(chosen)
    ]
    results = TransformersEngine(model, tokenizer).generate(requests)
    # Few end within 16 tokens by themselves, so each is cut at a length of its own.
    return [
        (
            result.prompt_token_ids,
            tuple(s.token_ids[: int(rng.integers(*RESPONSE_TOKENS, endpoint=True))] for s in result.samples),
        )
        for result in results
    ]


def _distinct_groups(
    model: Any,  # noqa: ARG001 - one signature for both kinds
    tokenizer: Any,
    prompts: int,
    k: int,
    seed: int,
) -> list[Group]:
    rng = stream(seed, "distinct")
    words = sorted({word for task in _seed_tasks() for word in task.split()})
    vocabulary = sorted({token for ids in tokenizer([f" {word}" for word in words]).input_ids for token in ids})

    def response(first: int) -> Tokens:
        rest = int(rng.integers(*RESPONSE_TOKENS, endpoint=True)) - 1
        return (first, *rng.choice(vocabulary, rest).tolist())

    def prompt() -> Tokens:
        ids = tokenizer(" ".join(rng.choice(words, PROMPT_TOKENS[1]))).input_ids  # a word has at least one token
        return tuple(ids[: int(rng.integers(*PROMPT_TOKENS, endpoint=True))])

    by_first: dict[int, Tokens] = {}
    while len(by_first) < prompts:
        made = prompt()
        by_first.setdefault(made[0], made)
    return [
        (made, tuple(response(int(first)) for first in rng.choice(vocabulary, k, replace=False)))
        for made in by_first.values()
    ]
