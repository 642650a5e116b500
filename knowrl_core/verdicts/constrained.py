"""Verdicts from the exact probabilities of the two label strings."""

import math
from dataclasses import dataclass

from scipy.special import expit

from knowrl_core.engines.base import ChooseResult, Turn
from knowrl_core.errors import StageError
from knowrl_core.labels import FEASIBLE, INFEASIBLE, LABELS, Label


@dataclass(frozen=True, slots=True)
class LabelProbability:
    """What the model thinks of one prompt.

    Attributes:
        p_infeasible: Probability of infeasible, renormalised over both labels at the sampling temperature.
        label_mass: Probability of both label strings together before that, at temperature 1.
    """

    p_infeasible: float
    label_mass: float

    def draw(self, uniform: float) -> Label:
        """The verdict that a uniform number in [0, 1) selects."""
        return INFEASIBLE if uniform < self.p_infeasible else FEASIBLE


def choices_after(turns: tuple[Turn, ...]) -> tuple[str, str]:
    """The label strings, in the order of ``LABELS``, as they follow a prompt.

    A response that continues a prefill begins with a space, as the tokenizers of most models write words.
    """
    space = " " if turns[-1].role == "assistant" else ""
    return f"{space}{FEASIBLE}", f"{space}{INFEASIBLE}"


def label_probability(result: ChooseResult, temperature: float) -> LabelProbability:
    """Compute the exact distribution of a constrained verdict.

    With ``s_c`` the log-probability of label string ``c`` (the sum over its tokens), the probability of infeasible at
    temperature ``T`` is ``softmax(s / T)`` at infeasible, which is the logistic of ``(s_infeasible - s_feasible) / T``.

    Args:
        result: The engine's answer for the choices of :func:`choices_after`.
        temperature: Above 0.

    Raises:
        StageError: The engine gave not two finite log-probabilities.
    """
    scores = [math.fsum(logprobs) for logprobs in result.token_logprobs]
    if len(scores) != len(LABELS) or not all(map(math.isfinite, scores)):
        raise StageError(
            f"got label log-probabilities {scores}, expected two finite numbers",
            hint="The model's weights may hold non-finite values: look at the last update, or go back a checkpoint.",
        )
    feasible, infeasible = scores
    # Rounding can lift the sum of two probabilities a hair above 1.
    mass = min(1.0, math.exp(feasible) + math.exp(infeasible))
    return LabelProbability(float(expit((infeasible - feasible) / temperature)), mass)
