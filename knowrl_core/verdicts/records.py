"""Rows of the verdict table, from the engine's answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from knowrl_core.engines.base import ChooseResult, GenerateResult
from knowrl_core.errors import StageError
from knowrl_core.labels import LABELS
from knowrl_core.storage.schemas import VerdictRecord
from knowrl_core.verdicts.ask import Ask
from knowrl_core.verdicts.constrained import label_probability
from knowrl_core.verdicts.parse import parse_verdict


@dataclass(frozen=True, slots=True)
class Lineage:
    """What produced the verdicts.

    Attributes:
        prompt_sha256: Hash of the template.
        engine: Engine and its arithmetic.
        policy: Policy and the hash of its weights.
    """

    prompt_sha256: str
    engine: str
    policy: str


def constrained_records(
    ask: Ask, result: ChooseResult, uniforms: Sequence[float], temperature: float, lineage: Lineage
) -> list[VerdictRecord]:
    """Rows of one prompt in constrained mode.

    Args:
        ask: The prompt.
        result: The engine's answer to it.
        uniforms: One number in [0, 1) for each verdict of the task, by verdict number.
        temperature: Sampling temperature.
        lineage: What produced them.
    """
    probability = label_probability(result, temperature)
    records = []
    for sample in ask.samples:
        verdict = probability.draw(uniforms[sample])
        chosen = LABELS.index(verdict)
        records.append(
            VerdictRecord(
                task_id=ask.question.id,
                sample=sample,
                view=ask.view.name,
                verdict=verdict,
                text=verdict,
                token_ids=list(result.token_ids[chosen]),
                logprobs=list(result.token_logprobs[chosen]),
                prompt_token_ids=list(result.prompt_token_ids),
                p_infeasible=probability.p_infeasible,
                label_mass=probability.label_mass,
                prompt_sha256=lineage.prompt_sha256,
                engine=lineage.engine,
                policy=lineage.policy,
                seed=ask.seed,
            )
        )
    return records


def free_records(ask: Ask, result: GenerateResult, lineage: Lineage) -> list[VerdictRecord]:
    """Rows of one prompt in free mode.

    Raises:
        StageError: The engine gave another number of samples than was asked for.
    """
    if len(result.samples) != len(ask.samples):
        raise StageError(
            f"task {ask.question.id!r}: got {len(result.samples)} samples, expected {len(ask.samples)} in view "
            f"{ask.view.name}"
        )
    prefill = ask.turns[-1].content if ask.turns[-1].role == "assistant" else ""
    return [
        VerdictRecord(
            task_id=ask.question.id,
            sample=number,
            view=ask.view.name,
            verdict=parse_verdict(sample.text, prefill),
            text=sample.text,
            token_ids=list(sample.token_ids),
            logprobs=list(sample.logprobs),
            prompt_token_ids=list(result.prompt_token_ids),
            p_infeasible=None,
            label_mass=None,
            prompt_sha256=lineage.prompt_sha256,
            engine=lineage.engine,
            policy=lineage.policy,
            seed=ask.seed,
        )
        for number, sample in zip(ask.samples, result.samples, strict=True)
    ]
