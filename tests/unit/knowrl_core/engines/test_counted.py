"""Tokens are counted as answers come, and answers stay what they are."""

from types import SimpleNamespace

from knowrl_core.engines.base import ChooseResult, GenerateResult, Sample
from knowrl_core.engines.counted import CountedEngine


def sample(*tokens):
    return Sample(text="", token_ids=tokens, logprobs=(0.0,) * len(tokens), finish_reason="stop")


def test_tokens_are_counted_answer_by_answer():
    written = GenerateResult(prompt_token_ids=(1, 2, 3), samples=(sample(4, 5), sample(6)))
    scored = ChooseResult(prompt_token_ids=(1, 2, 3), token_ids=((4,), (5, 6)), token_logprobs=((0.0,), (0.0, 0.0)))
    inner = SimpleNamespace(name="e", generate=lambda _: iter([written] * 2), choose=lambda _: iter([scored]))
    counts = []
    engine = CountedEngine(inner, counts.append)
    assert engine.name == "e"
    answers = engine.generate([])
    assert next(answers) is written
    assert counts == [3], "before the second answer is there"
    assert list(answers) == [written]
    assert list(engine.choose([])) == [scored]
    assert counts == [3, 3, 6], "a choice with the prompt that was read for it"
