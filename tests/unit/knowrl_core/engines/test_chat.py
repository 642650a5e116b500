import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from knowrl_core.engines.base import Turn
from knowrl_core.engines.chat import encode_continuation, neutralise, render
from knowrl_core.errors import InputError

USER = Turn(role="user", content="hello")


@pytest.fixture
def bare(tiny):
    """The tiny tokenizer without a chat template, with an added token that is no special one."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tiny.tokenizer.backend_tokenizer.to_str()),
        eos_token="<|im_end|>",
    )
    tokenizer.add_tokens(["<tool>", "  ", "Paris"])
    return tokenizer


def test_the_template_is_used_as_it_is(tiny):
    turns = (Turn(role="system", content="be brief"), USER)
    expected = tiny.tokenizer.apply_chat_template(
        [turn.model_dump() for turn in turns], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert render(tiny.tokenizer, turns) == expected


@pytest.mark.parametrize("prefill", ["1.", "\n1.", "Verdict: ", "x <|im_end|>"])
def test_a_prefill_follows_verbatim(tiny, prefill):
    ids = render(tiny.tokenizer, (USER, Turn(role="assistant", content=prefill)))
    text = tiny.tokenizer.decode(ids)
    assert text.endswith("<|im_start|>assistant\n" + prefill.replace("<|im_end|>", "< |im_end|>"))


def test_an_empty_prefill_is_none(tiny):
    assert render(tiny.tokenizer, (USER, Turn(role="assistant", content=""))) == render(tiny.tokenizer, (USER,))


def test_a_prefill_alone_answers_an_empty_turn(tiny):
    prefill = Turn(role="assistant", content="Once")
    assert render(tiny.tokenizer, (prefill,)) == render(tiny.tokenizer, (Turn(role="user", content=""), prefill))


def test_without_a_template_there_is_plain_text(bare):
    turns = (Turn(role="system", content="be brief"), USER, Turn(role="assistant", content="Well,"))
    assert bare.decode(render(bare, turns)) == "System: be brief\nUser: hello\nAssistant: Well,"


@pytest.mark.parametrize(
    "content",
    [
        "<|im_end|>",
        "<|im_start|><|im_end|>",
        "<|im_<|im_end|>end|>",
        "<<|im_start|>|im_start|>",
        "a<tool>b",
        "<|IM_END|>",
    ],
)
def test_no_control_token_survives(bare, content):
    safe = neutralise(bare, content)
    control = set(bare.added_tokens_decoder) - set(bare.convert_tokens_to_ids(["  ", "Paris"]))
    assert not control & set(bare(safe).input_ids)
    assert safe.replace(" ", "") == content  # still readable


def test_harmless_text_is_left_alone(bare):
    text = "Paris  is < 3 |im_end| of <tools>\n"
    assert neutralise(bare, text) == text


def test_a_template_that_asks_for_the_date_gets_the_same_every_day(bare):
    # As in Llama 3.2.
    bare.chat_template = (
        "{%- if not date_string is defined %}\n"
        "    {%- if strftime_now is defined %}\n"
        "        {%- set date_string = strftime_now('%d %b %Y') %}\n"
        "    {%- endif %}\n"
        "{%- endif %}\n"
        "{{- 'Today: ' + date_string }} {{ messages[0].content }}"
    )
    assert bare.decode(render(bare, (USER,))) == "Today: 01 Jan 2025 hello"


@pytest.mark.parametrize(
    ("form", "text"),
    [("%A, %B %-d, %Y", "Wednesday, January 1, 2025"), ("%Y-%m-%d", "2025-01-01"), ("%H:%M 100%%", "00:00 100%")],
)
def test_dates_are_written_as_the_template_asks(bare, form, text):
    bare.chat_template = f"  {{% set now = strftime_now('{form}') %}}\n{{{{ now }}}}"
    assert bare.decode(render(bare, (USER,))) == text


def test_a_refusing_template_is_explained(bare):
    bare.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(InputError, match=r"turns \[user\].*System role not supported"):
        render(bare, (USER,))


def test_choices_have_no_control_tokens_and_at_least_one_token(tiny):
    assert tiny.tokenizer.decode(encode_continuation(tiny.tokenizer, " feasible")) == " feasible"
    assert tiny.tokenizer.eos_token_id not in encode_continuation(tiny.tokenizer, "<|im_end|>")
    with pytest.raises(InputError, match="no tokens"):
        encode_continuation(tiny.tokenizer, "")
