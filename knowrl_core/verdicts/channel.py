"""Verdicts from the other direction: under which of the two introspection prompts is a task's text likelier?

A verdict prompt asks for p(label | task). Here the model is asked for p(task | label): the prompt that lets it write
infeasible tasks, with few-shot examples of that label, and the one for feasible tasks. By Bayes' rule with even priors

    p(infeasible | task) = 1 / (1 + exp(-s)),    s = mean over the task's tokens of
                           log p(token | infeasible prompt, tokens before) - log p(token | feasible prompt, ...)

The mean in place of the sum keeps long tasks from being certain merely because they are long. Noisy channel
classification by prompting is from Min et al. 2022 (arXiv 2108.04106), who found it less dependent on the prompt and
the examples than asking for the label. Its offset between the two prompts is no evidence: use it with a rule that
compares a task with the others of its batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from knowrl_core.config.learning import IntrospectionConfig
from knowrl_core.engines.base import ChooseRequest, GenerationEngine
from knowrl_core.errors import StageError
from knowrl_core.introspection.plan import PlannedCall, plan_calls
from knowrl_core.labels import FEASIBLE, INFEASIBLE, LABELS
from knowrl_core.prompts import Prompts
from knowrl_core.rng import derive_seed, stream
from knowrl_core.seeds import SeedTask
from knowrl_core.storage.schemas import VerdictRecord
from knowrl_core.verdicts.judge import Progress

CHANNEL: Final = "channel"
"""The random streams, and the beginning of the names of the draws, which stand where a verdict has its view."""

CHANNEL_VOTES: Final = (CHANNEL, "joint")
"""Values of ``consensus.reward.votes`` that need these verdicts."""


@dataclass(frozen=True, slots=True)
class Channel:
    """How tasks are judged by their likelihood.

    Attributes:
        draws: Times that few-shot examples are drawn anew, each for one prompt a label.
        shots: Examples in each prompt.
        verdicts: Verdicts a task, at least as many; verdict j uses draw j modulo the draws.
    """

    draws: int
    shots: int
    verdicts: int


def channel_steps(tasks: int, channel: Channel) -> int:
    """Number of texts that are scored for so many tasks: the total of a progress bar."""
    return tasks * channel.draws * len(LABELS)


def judge_by_channel(
    engine: GenerationEngine,
    tasks: Sequence[tuple[str, str]],
    *,
    channel: Channel,
    introspection: IntrospectionConfig,
    seeds: Sequence[SeedTask],
    prompts: Prompts,
    run_seed: int,
    iteration: int,
    policy: str,
    progress: Progress | None = None,
) -> list[VerdictRecord]:
    """Judge each task in all draws.

    The examples come from the stream ``(run_seed, iteration, "channel")``, never from that of the generation: a task
    would be likelier under the very prompt that it was written for, whatever it says.

    Args:
        engine: Whose likelihoods are asked.
        tasks: Id and text of each task; ids are unique.
        channel: Draws, examples, temperature.
        introspection: How prompts are laid out otherwise.
        seeds: Verified tasks of both labels, the examples.
        prompts: The templates.
        run_seed: The run's seed.
        iteration: The iteration.
        policy: Policy, for the lineage.
        progress: Told (texts scored, texts in all).

    Returns:
        ``channel.verdicts`` rows a task, in the order of the tasks and then of the verdicts. They have no response:
        tokens are empty and there is no label mass.

    Raises:
        InputError: Fewer seeds of a label than ``channel.shots``; a prompt does not fit the model.
        StageError: An id stands twice, or the engine answers with another number of results or with no number.
    """
    ids = [task_id for task_id, _ in tasks]
    if len(set(ids)) != len(ids):
        raise StageError("a task stands twice among those to judge, expected each id once")
    texts = [" ".join(text.split()) for _, text in tasks]
    calls = plan_calls(
        introspection.model_copy(update={"calls_per_label": channel.draws, "shots": channel.shots, "pool_shots": 0}),
        seeds,
        [],
        run_seed=derive_seed(run_seed, CHANNEL),
        iteration=iteration,
        prompts=prompts,
    )
    means = {label: np.empty((channel.draws, len(texts))) for label in LABELS}
    done = 0
    for call in calls if texts else ():
        means[call.label][call.call] = _means(engine, call, texts)
        done += len(texts)
        if progress is not None:
            progress(done, channel_steps(len(texts), channel))
    p_infeasible = expit(means[INFEASIBLE] - means[FEASIBLE])
    template = prompts.introspection(INFEASIBLE).sha256
    records = []
    for place, task_id in enumerate(ids):
        seed = derive_seed(run_seed, iteration, CHANNEL, task_id)
        uniforms = stream(run_seed, iteration, CHANNEL, task_id).random(channel.verdicts)
        for sample in range(channel.verdicts):
            draw = sample % channel.draws
            p = float(p_infeasible[draw, place])
            verdict = INFEASIBLE if uniforms[sample] < p else FEASIBLE
            records.append(
                VerdictRecord(
                    task_id=task_id,
                    sample=sample,
                    view=f"{CHANNEL}-{draw}",
                    verdict=verdict,
                    text="",
                    token_ids=[],
                    logprobs=[],
                    prompt_token_ids=[],
                    p_infeasible=p,
                    label_mass=None,
                    prompt_sha256=template,
                    engine=engine.name,
                    policy=policy,
                    seed=seed,
                )
            )
    return records


def _means(engine: GenerationEngine, call: PlannedCall, texts: Sequence[str]) -> NDArray[np.float64]:
    """[tasks] mean log-probability of each text's tokens as the next item of the list, up to the end of its line."""
    opening = " " if call.prefilled else f"{call.next_number}. "
    # One text a request: all share the prompt, which the engine computes once.
    requests = [ChooseRequest(turns=call.request.turns, choices=(f"{opening}{text}\n",)) for text in texts]
    means = np.array([np.mean(answer.token_logprobs[0]) for answer in engine.choose(requests)])
    finite = int(np.isfinite(means).sum())
    if not len(means) == len(texts) == finite:
        raise StageError(
            f"got {len(means)} likelihoods, {finite} of them finite numbers, expected {len(texts)}",
            hint="The model's weights may hold non-finite values: look at the last update, or go back a checkpoint.",
        )
    return means
