import pytest
from pydantic import ValidationError

from knowrl_core.rl import FlatVerdict, Rollout, UpdateJob, Verdict


def verdict(sample: int, reward: float = 1.0) -> Verdict:
    return Verdict(sample=sample, response_token_ids=(5, 6), engine_logprobs=(-0.1, -0.2), reward=reward)


def test_verdicts_are_grouped_by_prompt_in_order_of_first_occurrence():
    flat = [FlatVerdict((9, 8), verdict(0)), FlatVerdict((7,), verdict(1)), FlatVerdict((9, 8), verdict(2))]
    rollout = Rollout.from_verdicts("t", flat)
    assert [group.prompt_token_ids for group in rollout.prompts] == [(9, 8), (7,)]
    assert [[v.sample for v in group.verdicts] for group in rollout.prompts] == [[0, 2], [1]]
    assert (rollout.n_verdicts, rollout.longest_prompt, rollout.longest_sequence) == (3, 2, 4)


def test_json_round_trip_is_exact(make_job):
    job = make_job()
    assert UpdateJob.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine_logprobs": (-0.1,)}, "1 engine_logprobs, expected one for each of its 2"),
        ({"response_token_ids": (), "engine_logprobs": ()}, "response_token_ids"),
        ({"reward": float("nan")}, "reward"),
        ({"other": 1}, "other"),
    ],
)
def test_wrong_verdicts_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        Verdict(**(verdict(0).model_dump() | change))


def test_the_same_sample_twice_is_refused():
    with pytest.raises(ValidationError, match="each number once"):
        Rollout.from_verdicts("t", [FlatVerdict((1,), verdict(0)), FlatVerdict((2,), verdict(0))])
