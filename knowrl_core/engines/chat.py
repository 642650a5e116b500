"""From chat turns to token ids, with the content of turns kept apart from the control tokens of the model."""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2

from knowrl_core.engines.base import Turn
from knowrl_core.errors import InputError

TEMPLATE_DATE = datetime(2025, 1, 1)
"""Today, for chat templates that print the date: with the real one a prompt would depend on the day it is made."""

_PLAIN_LABELS = {"system": "System", "user": "User", "assistant": "Assistant"}


def render(tokenizer: Any, turns: Sequence[Turn]) -> list[int]:
    """Token ids of a conversation, ready for the assistant's next words.

    The tokenizer's chat template is used with its generation prompt. A last turn of the assistant is a *prefill*: its
    text follows the generation prompt verbatim and the answer continues it. Its trailing whitespace is kept, too. Since
    byte-level tokens carry the space before a word, a prefill should end without one ("Verdict:") and choices should
    begin with it (" feasible"); the other way round the model sees token sequences that it was never trained on.

    A tokenizer without a template gets plain text, which base models continue well enough::

        System: ...
        User: ...
        Assistant:

    Args:
        tokenizer: A ``PreTrainedTokenizerBase``.
        turns: At least one.

    Returns:
        Token ids; never empty.

    Raises:
        InputError: The template refuses the conversation (some models know no system turn).
    """
    *rest, last = turns
    history, prefill = (rest, last.content) if last.role == "assistant" else (list(turns), "")
    # Templates want somebody to have spoken.
    history = history or [Turn(role="user", content="")]
    messages = [{"role": turn.role, "content": neutralise(tokenizer, turn.content)} for turn in history]
    prefill = neutralise(tokenizer, prefill)
    templated = bool(getattr(tokenizer, "chat_template", None))
    text = _apply_template(tokenizer, messages) if templated else _plain(messages)
    if not templated and prefill and not prefill[0].isspace():
        prefill = " " + prefill  # the label ends with a colon
    # Text and prefill are tokenised together, so that the pieces at the seam are those that the model knows. A template
    # writes the model's first token itself; plain text gets it from the tokenizer, if it has one.
    ids: list[int] = tokenizer(text + prefill, add_special_tokens=not templated).input_ids
    return ids or [_any_start(tokenizer)]


def encode_continuation(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that continues a prompt: no special tokens, nothing recognised as one.

    Raises:
        InputError: The text gives no token.
    """
    ids: list[int] = tokenizer(neutralise(tokenizer, text), add_special_tokens=False).input_ids
    if not ids:
        raise InputError(
            f"the choice {text!r} has no tokens", hint="Give choices of at least one character, such as ' feasible'."
        )
    return ids


def neutralise(tokenizer: Any, content: str) -> str:
    """Content in which no control token of the tokenizer is left: a space is put after its first character.

    ``<|im_end|>`` in a task becomes ``< |im_end|>``: still readable, but ordinary text. Every added token counts,
    special or not (``<tool_call>``), apart from those that are whitespace or a plain word, which control nothing.
    """
    pattern = _control_pattern(tuple(sorted(_control_tokens(tokenizer))))
    while pattern is not None and pattern.search(content):
        # Until nothing is found: a split may leave another token ("<<s>s>").
        content = pattern.sub(_split, content)
    return content


def _split(match: re.Match[str]) -> str:
    token = match.group()
    return f"{token[0]} {token[1:]}" if len(token) > 1 else ""  # one character cannot be split, only left out


def _control_tokens(tokenizer: Any) -> set[str]:
    added = tokenizer.added_tokens_decoder.values()
    control = {token.content for token in added if token.special or not token.content.isalnum()}
    control.update(tokenizer.all_special_tokens)
    return {token.strip() for token in control if token.strip()}


@lru_cache(maxsize=16)
def _control_pattern(tokens: tuple[str, ...]) -> re.Pattern[str] | None:
    if not tokens:
        return None
    longest_first = sorted(tokens, key=len, reverse=True)
    # Case is ignored: a tokenizer that lower-cases its input would still find the token.
    return re.compile("|".join(re.escape(token) for token in longest_first), re.IGNORECASE)


def _apply_template(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            messages, chat_template=_dated(tokenizer), tokenize=False, add_generation_prompt=True
        )
    except jinja2.TemplateError as error:
        roles = " ".join(message["role"] for message in messages) or "none"
        raise InputError(
            f"the model's chat template refuses a conversation of the turns [{roles}]: {str(error)[:300]}",
            hint="Use prompt templates with the turns that this model knows; many know no system turn, and most want "
            "user and assistant to alternate.",
        ) from error
    return text


def _dated(tokenizer: Any) -> str:
    """The chat template, with a ``strftime_now`` of its own in place of transformers', which reads the clock.

    It is a macro in front of the template, since transformers hands no function on to one. Templates that want a
    ``date_string`` take it from there, or have a fixed one.
    """
    template: str = tokenizer.get_chat_template()
    return _date_macro() + template if "strftime_now" in template else template


@lru_cache(maxsize=1)
def _date_macro() -> str:
    directives = [f"%{letter}" for letter in "aAbBcdHIjmMpSUwWxXyYzZ"]
    bare = {f"%-{letter}": TEMPLATE_DATE.strftime(f"%{letter}").lstrip("0") or "0" for letter in "dHIjmMSy"}
    values = bare | {name: TEMPLATE_DATE.strftime(name) for name in directives} | {"%%": "%"}
    filters = "".join(f" | replace({name!r}, {value!r})" for name, value in values.items())
    # The line break is taken off again (trim_blocks), and leaves the template at the start of a line as it was.
    return f"{{% macro strftime_now(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}\n"


def _plain(messages: list[dict[str, str]]) -> str:
    return "".join(f"{_PLAIN_LABELS[turn['role']]}: {turn['content']}\n" for turn in messages) + "Assistant:"


def _any_start(tokenizer: Any) -> int:
    """A token to begin with when a template renders to nothing: a model cannot continue no tokens at all."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0
