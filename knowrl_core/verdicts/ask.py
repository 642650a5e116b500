"""What is asked for each task: one prompt a view, and which verdicts it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from knowrl_core.config.learning import VerdictConfig
from knowrl_core.engines.base import ChooseRequest, GenerateRequest, Turn
from knowrl_core.errors import StageError
from knowrl_core.prompts import Template, View, check_views, verdict_variables
from knowrl_core.rng import derive_seed
from knowrl_core.verdicts.constrained import choices_after


class Question(NamedTuple):
    """A task to be judged. There is no place for a label: judging is blind."""

    id: str
    task: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt.

    Attributes:
        question: The task.
        view: The view in which it is asked.
        turns: The prompt.
        samples: Numbers of the verdicts that this prompt gives, ascending.
        seed: Noise stream of the task, common to its prompts.
    """

    question: Question
    view: View
    turns: tuple[Turn, ...]
    samples: range
    seed: int


def expected_steps(tasks: int, config: VerdictConfig, *, k: int | None = None) -> int:
    """Number of prompts for so many tasks: the total of a progress bar."""
    return tasks * min(len(config.views), config.k if k is None else k)


def plan_asks(
    questions: Sequence[Question],
    template: Template,
    config: VerdictConfig,
    *,
    k: int,
    run_seed: int,
    iteration: int,
    stage: str,
) -> list[Ask]:
    """Lay out the prompts: verdict ``j`` of a task uses view ``j % len(views)``.

    Args:
        questions: The tasks, each id once.
        template: The verdict template.
        config: Views and sampling.
        k: Verdicts a task.
        run_seed: The run's seed.
        iteration: The iteration.
        stage: Name of the stage in the random streams.

    Returns:
        Prompts by task, then view.

    Raises:
        StageError: An id stands twice.
    """
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise StageError(f"task {question.id!r} stands twice among the tasks to judge, expected each id once")
        seen.add(question.id)
    views = check_views(config.views)
    return [
        Ask(
            question=question,
            view=view,
            turns=template.render(**verdict_variables(question.task, view)),
            samples=range(place, k, len(views)),
            seed=derive_seed(run_seed, iteration, stage, question.id),
        )
        for question in questions
        for place, view in enumerate(views[:k])
    ]


def choose_request(ask: Ask) -> ChooseRequest:
    """The request of a prompt in constrained mode."""
    return ChooseRequest(turns=ask.turns, choices=choices_after(ask.turns))


def generate_request(ask: Ask, config: VerdictConfig) -> GenerateRequest:
    """The request of a prompt in free mode.

    Its noise derives from the task's stream and the view: with the task's stream alone, the first verdicts of all views
    would share their noise.
    """
    return GenerateRequest(
        turns=ask.turns,
        n=len(ask.samples),
        seed=derive_seed(ask.seed, ask.view.name),
        temperature=config.sampling.temperature,
        top_p=config.sampling.top_p,
        max_new_tokens=config.sampling.max_new_tokens,
    )
