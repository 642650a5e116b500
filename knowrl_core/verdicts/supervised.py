"""Verdicts as they should be: what a supervised warm-up trains on."""

from knowrl_core.engines.base import ChooseRequest
from knowrl_core.errors import StageError
from knowrl_core.labels import Label
from knowrl_core.verdicts.ask import Ask
from knowrl_core.verdicts.constrained import choices_after
from knowrl_core.verdicts.parse import parse_verdict


def target_request(ask: Ask, label: Label, reason: str, mode: str) -> ChooseRequest:
    """The request whose only choice is the right answer to a prompt.

    In constrained mode that is the label string. In free mode it is a whole response in the form that the prompt asks
    for, up to the end of the turn; without a reason it is the verdict line alone.

    Args:
        ask: The prompt.
        label: The verified label.
        reason: Why it is right, in a sentence; may be empty.
        mode: ``verdict.mode``.

    Raises:
        StageError: The response would not be read as that verdict.
    """
    if mode == "constrained":
        right = next(choice for choice in choices_after(ask.turns) if choice.strip() == label)
        return ChooseRequest(turns=ask.turns, choices=(right,))
    prefill = ask.turns[-1].content if ask.turns[-1].role == "assistant" else ""
    words = " ".join(reason.split())
    opening = f" {words}" if words and prefill else words and f"Reason: {words}"
    text = f"{opening}\nVerdict: {label}" if opening or prefill else f"Verdict: {label}"
    if parse_verdict(text, prefill) != label:
        raise StageError(
            f"the response {(prefill + text)[-200:]!r} for a warm-up on {ask.question.id} does not read as the verdict "
            f"{label}",
            hint="Change the seed's reason, or the end of the verdict template, which the response continues.",
        )
    return ChooseRequest(turns=ask.turns, choices=(text,), closed=True)
