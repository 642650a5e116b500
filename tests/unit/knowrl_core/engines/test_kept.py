"""Answers that outlive the process that asked for them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowrl_core.engines import ChooseRequest, ChooseResult, GenerateRequest, GenerateResult, Turn
from knowrl_core.engines.base import Sample
from knowrl_core.engines.kept import KeptEngine

IDENTITY = {"policy": "it001@abc", "dtype": "fp32"}


class Counting:
    """Answers that tell what they were batched with, as float noise would; counts what it is asked."""

    name = "counting"

    def __init__(self, shard=4):
        self.shard, self.asked = shard, 0

    def generate(self, requests):
        for place, request in enumerate(requests):
            self.asked += 1
            batch = requests[place // self.shard * self.shard :][: self.shard]
            noise = sum(item.seed for item in batch) / 7
            text = f"{request.turns[0].content} ½\n{request.seed}"
            yield GenerateResult(
                prompt_token_ids=(1, 2),
                samples=(
                    Sample(text=text, token_ids=(3, request.seed), logprobs=(-noise, -0.1), finish_reason="stop"),
                ),
            )

    def choose(self, requests):
        for _ in requests:
            self.asked += 1
            yield ChooseResult(prompt_token_ids=(1,), token_ids=((2,),), token_logprobs=((-0.3,),))


def ask(count, first=0):
    return [
        GenerateRequest(turns=(Turn(role="user", content=f"task {n}"),), seed=first + n, max_new_tokens=4)
        for n in range(count)
    ]


def kept(folder, engine, **change):
    return KeptEngine(engine, folder, shard=change.pop("shard", 4), identity=IDENTITY | change)


@settings(deadline=None, max_examples=60)
@given(count=st.integers(0, 13), died=st.lists(st.integers(0, 13), max_size=3), shard=st.integers(1, 5))
def test_answers_are_those_of_an_uninterrupted_stage(tmp_path_factory, count, died, shard):
    folder = tmp_path_factory.mktemp("kept")
    expected = list(Counting(shard).generate(ask(count)))
    furthest = 0
    for stop in died:
        answers = kept(folder, Counting(shard), shard=shard).generate(ask(count))
        assert [next(answers, None) for _ in range(stop)] == (expected + [None] * stop)[:stop]
        answers.close()
        furthest = max(furthest, min(stop, count))
    engine = Counting(shard)
    assert list(kept(folder, engine, shard=shard).generate(ask(count))) == expected
    whole = count if furthest == count else furthest // shard * shard  # shards whose last answer was taken
    assert engine.asked == count - whole
    again = Counting(shard)
    assert list(kept(folder, again, shard=shard).generate(ask(count))) == expected
    assert again.asked == 0


def test_other_questions_weights_or_arithmetic_find_nothing(tmp_path):
    list(kept(tmp_path, Counting()).generate(ask(6)))
    for change, questions in [({}, ask(6, first=1)), ({"policy": "it002@abc"}, ask(6)), ({"shard": 3}, ask(6))]:
        engine = Counting()
        list(kept(tmp_path, engine, **change).generate(questions))
        assert engine.asked == 6
    choices = [ChooseRequest(turns=(Turn(role="user", content="x"),), choices=("a",))] * 5
    engine = Counting()
    assert list(kept(tmp_path, engine).choose(choices)) == list(kept(tmp_path, engine).choose(choices))
    assert engine.asked == 5


def _cut(text):
    return text[: len(text) // 2]


def _altered(text):
    return text.replace("-0.1", "-0.2")


def _shorter(text):
    content = json.loads(text)
    return json.dumps({**content, "answers": content["answers"][:1]})


@pytest.mark.parametrize("spoil", [_cut, _altered, _shorter, lambda _: "", lambda _: "[]"])
def test_a_spoilt_file_is_computed_again(tmp_path, spoil):
    expected = list(kept(tmp_path, Counting()).generate(ask(10)))
    (folder,) = tmp_path.iterdir()
    first, second, third = sorted(folder.iterdir())
    second.write_text(spoil(second.read_text()))
    engine = Counting()
    assert list(kept(tmp_path, engine).generate(ask(10))) == expected
    assert engine.asked == 6  # from the spoilt one on
    assert first.exists()
    assert third.exists()


def test_a_stage_goes_on_where_nothing_can_be_kept(tmp_path):
    (tmp_path / "file").write_text("")
    engine = kept(tmp_path / "file" / "below", Counting())
    assert list(engine.generate(ask(9))) == list(Counting().generate(ask(9)))
