"""Judging by likelihood: by hand with an engine of known likelihoods, and against a plain computation with a model."""

import math
from statistics import fmean

import numpy as np
import pytest
import torch

from knowrl_core.config.learning import IntrospectionConfig
from knowrl_core.config.system import EngineConfig, PromptsConfig
from knowrl_core.engines import build_engine
from knowrl_core.engines.base import ChooseResult
from knowrl_core.errors import InputError, StageError
from knowrl_core.introspection import plan_calls
from knowrl_core.models.load import load_policy, load_tokenizer
from knowrl_core.models.tiny import tiny_folder
from knowrl_core.prompts import load_prompts
from knowrl_core.seeds import SeedTask
from knowrl_core.verdicts.channel import Channel, channel_steps, judge_by_channel

PROMPTS = load_prompts(PromptsConfig())
SEEDS = [
    SeedTask(id=f"{label[0]}{n}", task=f"{label} task number {n}", label=label)
    for label in ("feasible", "infeasible")
    for n in range(20)
]
TASKS = [("t1", "Sing a song."), ("t2", "Name a\nriver now.")]


class Likelihoods:
    """An engine with one mean log-probability for each (label of the prompt, text)."""

    name = "fake"

    def __init__(self, means, tokens=(1.0, 1.0)):
        self.means, self.tokens, self.requests = means, tokens, []

    def choose(self, requests):
        self.requests += requests
        for request in requests:
            label = "infeasible" if "confident you cannot do" in request.turns[1].content else "feasible"
            mean = self.means[label, request.choices[0].strip()]
            logprobs = tuple(mean * weight for weight in self.tokens)
            yield ChooseResult(prompt_token_ids=(1,), token_ids=((2,) * len(logprobs),), token_logprobs=(logprobs,))


def judge(engine, tasks=TASKS, *, draws=3, shots=4, verdicts=None, run_seed=3, iteration=2, progress=None):
    channel = Channel(draws, shots, draws if verdicts is None else verdicts)
    return judge_by_channel(
        engine, tasks, channel=channel, introspection=IntrospectionConfig(), seeds=SEEDS,
        prompts=PROMPTS, run_seed=run_seed, iteration=iteration, policy="p", progress=progress,
    )  # fmt: skip


MEANS = {
    ("feasible", "Sing a song."): -3.0,
    ("infeasible", "Sing a song."): -2.0,
    ("feasible", "Name a river now."): -1.0,
    ("infeasible", "Name a river now."): -1.5,
}


@pytest.mark.parametrize("tokens", [(1.0,), (0.5, 1.0, 1.5)])
def test_the_difference_of_the_means_by_hand(tokens):
    rows = judge(Likelihoods(MEANS, tokens))
    assert [(row.task_id, row.sample, row.view) for row in rows] == [
        (task, draw, f"channel-{draw}") for task in ("t1", "t2") for draw in range(3)
    ]
    for row in rows:
        expected = 1 / (1 + math.exp(-1)) if row.task_id == "t1" else 1 / (1 + math.exp(0.5))
        assert row.p_infeasible == pytest.approx(expected)
        assert (row.engine, row.policy, row.token_ids, row.label_mass) == ("fake", "p", [], None)


def test_verdicts_take_the_draws_in_turn():
    engine = Likelihoods(MEANS)
    rows = judge(engine, draws=2, verdicts=5)
    assert [(row.sample, row.view) for row in rows[:5]] == [(j, f"channel-{j % 2}") for j in range(5)]
    assert len(engine.requests) == 2 * 2 * len(TASKS)


def test_verdicts_are_drawn_from_the_probability():
    tasks = [(f"t{n}", "Sing a song.") for n in range(200)]
    rows = judge(Likelihoods(MEANS), tasks, draws=4)
    share = fmean(row.verdict == "infeasible" for row in rows)
    assert share == pytest.approx(1 / (1 + math.exp(-1)), abs=4 * math.sqrt(0.2 / 800))


def test_examples_are_drawn_anew_for_each_draw_and_are_not_those_of_the_generation():
    engine = Likelihoods(MEANS)
    judge(engine)
    prompts = {request.turns for request in engine.requests}
    assert len(engine.requests) == 2 * 3 * 2
    assert len(prompts) == 3 * 2
    config = IntrospectionConfig(calls_per_label=3, shots=4, pool_shots=0)
    own = plan_calls(config, SEEDS, [], run_seed=3, iteration=2, prompts=PROMPTS)
    assert not prompts & {call.request.turns for call in own}


def test_a_task_does_not_depend_on_the_others_and_iterations_differ():
    assert judge(Likelihoods(MEANS), TASKS[::-1])[:3] == judge(Likelihoods(MEANS))[3:]
    first, other = Likelihoods(MEANS), Likelihoods(MEANS)
    judge(first)
    judge(other, iteration=3)
    assert first.requests != other.requests


def test_progress_and_no_tasks():
    told = []
    judge(Likelihoods(MEANS), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12) == (channel_steps(2, Channel(3, 4, 3)),) * 2
    assert len(told) == 6
    assert judge(Likelihoods(MEANS), []) == []


def test_what_is_refused():
    with pytest.raises(StageError, match="twice"):
        judge(Likelihoods(MEANS), [TASKS[0], TASKS[0]])
    with pytest.raises(StageError, match="0 of them finite"):
        judge(Likelihoods(dict.fromkeys(MEANS, math.nan)))
    with pytest.raises(InputError, match="got 20 feasible seeds, expected at least 21"):
        judge(Likelihoods(MEANS), shots=21)


def test_likelihoods_of_a_model_equal_a_plain_forward_pass():
    folder, _ = tiny_folder()
    rows = judge(build_engine(EngineConfig(dtype="fp32"), folder, device="cpu"), draws=2)
    model = load_policy(folder, device="cpu", dtype=torch.float32).eval()
    tokenizer = load_tokenizer(folder)
    caught = Likelihoods(MEANS)
    judge(caught, draws=2)
    means = []
    for request in caught.requests:
        turns = [{"role": turn.role, "content": turn.content} for turn in request.turns]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, continue_final_message=True)
        start = tokenizer(prompt, add_special_tokens=False).input_ids
        answer = tokenizer(request.choices[0], add_special_tokens=False).input_ids
        with torch.inference_mode():
            logits = model(torch.tensor([start + answer])).logits[0].double().log_softmax(-1)
        scores = [logits[len(start) - 1 + place, token].item() for place, token in enumerate(answer)]
        means.append(fmean(scores))
    # Requests come by draw, then label, then task.
    table = np.array(means).reshape(2, 2, 2)
    for row in rows:
        difference = table[row.sample, 1, int(row.task_id == "t2")] - table[row.sample, 0, int(row.task_id == "t2")]
        assert row.p_infeasible == pytest.approx(1 / (1 + math.exp(-difference)), abs=1e-6)
