"""An engine that answers from a rule."""

import math

import pytest

from knowrl_core.engines.base import ChooseResult, GenerateResult, Sample


class RuleEngine:
    """Label probabilities from a function of the user turn; free texts from a list, in turn."""

    def __init__(self, p_infeasible=lambda user: 0.5, mass=0.5, texts=("Verdict: feasible",)):
        self.p_infeasible, self.mass, self.texts = p_infeasible, mass, texts
        self.requests = []

    def choose(self, requests):
        self.requests += requests
        for request in requests:
            p = self.p_infeasible(next(t.content for t in request.turns if t.role == "user"))
            yield ChooseResult(
                prompt_token_ids=(1, 2),
                token_ids=((3,), (4, 5)),
                token_logprobs=((math.log((1 - p) * self.mass),), (math.log(p * self.mass), 0.0)),
            )

    def generate(self, requests):
        self.requests += requests
        for request in requests:
            yield GenerateResult(
                prompt_token_ids=(1, 2),
                samples=tuple(
                    Sample(text=self.texts[j % len(self.texts)], token_ids=(j,), logprobs=(-1.0,), finish_reason="stop")
                    for j in range(request.n)
                ),
            )


@pytest.fixture(scope="session")
def rule_engine():
    """The class, so that a test can choose the rule."""
    return RuleEngine
