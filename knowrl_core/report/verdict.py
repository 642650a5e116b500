"""What a run came to, in a sentence or two that follow from its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from knowrl_core.guards import Stop
from knowrl_core.report.flips import SetFlips
from knowrl_core.report.scores import PROBE, SetScores, Values

Tone = Literal["good", "bad", "neutral"]

NOTABLE: Final = 0.03
"""A change of reward or truth that is worth a sentence; the guards' default."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a verdict follows from.

    Attributes:
        state: How the run stands.
        stop: Why a guard ended it.
        planned: Iterations that it is to have.
        iterations: Those that have a committed stage.
        warmup: Iteration 1 is the warm-up.
        best: The best by the probe.
        compared: The one compared with iteration 0.
        sets: The labelled sets.
        flips: Comparison with iteration 0.
        reward: Mean reward of unlabelled tasks by iteration.
        bounds: Shares called feasible that count as one answer for nearly everything.
    """

    state: str
    stop: Stop | None
    planned: int
    iterations: Sequence[int]
    warmup: bool
    best: int | None
    compared: int | None
    sets: Sequence[SetScores]
    flips: Sequence[SetFlips]
    reward: Values
    bounds: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict.

    Attributes:
        headline: In a few words.
        tone: Whether that is good news.
        sentences: The reasons, with numbers.
    """

    headline: str
    tone: Tone
    sentences: list[str]


def judge(facts: Facts) -> Verdict:
    """The verdict on a run.

    A change counts as one if the 95 % interval of the paired difference excludes 0. The best iteration was chosen by
    the probe that it is judged by, which flatters it; the report says so where it compares task by task.
    """
    probe = next((item for item in facts.sets if item.name == PROBE), None)
    measured = (
        [at for at, value in zip(facts.iterations, probe.head.values, strict=True) if value is not None]
        if probe
        else []
    )
    if probe is None or not measured:
        return Verdict("Nothing measured yet", "neutral", [_progress(facts)])
    last = measured[-1]
    sided = {at: _sided(facts, probe, at) for at in (0, last)}
    flip = next((item for item in facts.flips if item.dataset == PROBE), None)
    if flip is None or facts.compared is None:
        headline, tone = "Base model only", "neutral"
    else:
        headline, tone = _headline(facts, flip, sided[0], sided[last])
    sentences = [_main(facts, probe, flip)]
    sentences += _warmup(facts, probe)
    sentences += _end(facts, probe, last, sided[last])
    sentences += _against_wording(facts)
    sentences.append(_progress(facts))
    return Verdict(headline, tone, sentences)  # type: ignore[arg-type]


def _headline(facts: Facts, flip: SetFlips, sided_before: str | None, sided_after: str | None) -> tuple[str, Tone]:
    gained = flip.lower is not None and flip.lower > 0
    lost = flip.upper is not None and flip.upper < 0
    if sided_after:
        if gained:
            return "Learned, then collapsed", "bad"
        return ("Still one answer for nearly everything", "neutral") if sided_before else ("Collapsed", "bad")
    if gained:
        return (
            "Better than the base model, then stopped by a guard" if facts.stop else "Better than the base model"
        ), "good"
    if lost:
        return "Worse than the base model", "bad"
    return "No gain that the probe can tell from chance", "neutral"


def _main(facts: Facts, probe: SetScores, flip: SetFlips | None) -> str:
    name = probe.headline.replace("_", " ")
    base = _at(facts, probe.head.values, 0)
    if flip is None or facts.compared is None or base is None:
        at = next(at for at in facts.iterations if _at(facts, probe.head.values, at) is not None)
        known = _number(_at(facts, probe.head.values, at))
        return f"{name.capitalize()} on the probe is {known}{_interval(facts, probe, at)} ({probe.tasks} tasks)."
    at = facts.compared
    value = _at(facts, probe.head.values, at)
    difference = f"{flip.difference:+.3f}" if flip.difference is not None else "undefined"
    if flip.lower is not None and flip.upper is not None:
        difference += f", 95 % interval {flip.lower:+.3f} to {flip.upper:+.3f}"
    text = f"{name.capitalize()} on the probe went from {base:.3f} (base model) to {_number(value)}"
    if facts.best:
        text += f" at iteration {at}, the best of {_measured(facts, probe)}"
    else:
        text += f" at iteration {at}, the last; no iteration is better than the base model"
    text += f" (difference {difference}; {flip.mended} tasks mended, {flip.broken} broken, McNemar p {_p(flip.p)})."
    return text


def _measured(facts: Facts, probe: SetScores) -> int:
    """How many iterations after the base model were measured."""
    return sum(at > 0 and _at(facts, probe.head.values, at) is not None for at in facts.iterations)


def _warmup(facts: Facts, probe: SetScores) -> list[str]:
    value = _at(facts, probe.head.values, 1) if facts.warmup else None
    if value is None or not facts.best:
        return []
    if facts.best == 1:
        return ["That is the warm-up; no iteration after it is better."] if facts.iterations[-1] > 1 else []
    return [f"The warm-up alone (iteration 1) reached {value:.3f}."]


def _end(facts: Facts, probe: SetScores, last: int, sided: str | None) -> list[str]:
    found = []
    if sided:
        share = _at(facts, probe.metrics["called_feasible"].values, last) or 0.0
        found.append(f"At iteration {last} it calls {share:.0%} of the probe feasible: nearly always {sided}.")
    value = _at(facts, probe.head.values, last)
    best = _at(facts, probe.head.values, facts.best)
    if last != facts.compared and value is not None and best is not None:
        lost = best - value
        found.append(
            f"The last iteration, {last}, has {value:.3f}"
            + (f", {lost:.3f} less than the best." if lost > NOTABLE else ".")
        )
    rewards = [(at, value) for at, value in zip(facts.iterations, facts.reward, strict=False) if value is not None]
    if len(rewards) > 1 and value is not None and best is not None:
        (first, low), (end, high) = rewards[0], rewards[-1]
        if high - low >= NOTABLE and best - value >= NOTABLE:
            found.append(
                f"Reward rose from {low:.3f} (iteration {first}) to {high:.3f} (iteration {end}) while truth "
                "fell from its best: agreement with itself was learned instead."
            )
    return found


def _against_wording(facts: Facts) -> list[str]:
    above, known = [], 0
    for item in facts.sets:
        value = _at(facts, item.head.values, facts.best)
        if value is not None and "tfidf" in item.controls:
            known += 1
            if value > item.controls["tfidf"]:
                above.append(item.name)
    if not known:
        return []
    names = f" ({', '.join(above)})" if above else ""
    sets = "set" if known == 1 else "sets"
    return [f"At its best iteration it scores above TF-IDF on wording alone on {len(above)} of {known} {sets}{names}."]


def _progress(facts: Facts) -> str:
    done = max(facts.iterations, default=0)
    if facts.stop is not None:
        return f"A guard stopped it after iteration {facts.stop.iteration} of {facts.planned}: {facts.stop.reason}."
    words = {
        "running": f"It is running: iteration {done} of {facts.planned}.",
        "completed": f"It is complete: {done} of {facts.planned} iterations; no guard stopped it.",
        "waiting": f"It waits for others to go on: iteration {done} of {facts.planned}; no guard stopped it.",
        "not started": "It has not started.",
    }
    return words.get(facts.state, f"Its last attempt was {facts.state} in iteration {done} of {facts.planned}.")


def _sided(facts: Facts, probe: SetScores, at: int) -> str | None:
    """The label that the probe is nearly always given at an iteration, if there is one."""
    curve = probe.metrics.get("called_feasible")
    share = _at(facts, curve.values, at) if curve else None
    if share is None or facts.bounds[0] <= share <= facts.bounds[1]:
        return None
    return "infeasible" if share < facts.bounds[0] else "feasible"


def _interval(facts: Facts, probe: SetScores, at: int) -> str:
    lower, upper = _at(facts, probe.head.lower, at), _at(facts, probe.head.upper, at)
    return "" if lower is None or upper is None else f", 95 % interval {lower:.3f} to {upper:.3f}"


def _at(facts: Facts, values: Values, iteration: int | None) -> float | None:
    return values[facts.iterations.index(iteration)] if iteration in facts.iterations else None


def _number(value: float | None) -> str:
    return "an undefined value" if value is None else f"{value:.3f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
