import pytest

from knowrl_core.config.learning import SamplingConfig, VerdictConfig
from knowrl_core.config.system import PromptsConfig
from knowrl_core.errors import StageError
from knowrl_core.prompts import load_prompts
from knowrl_core.verdicts import expected_steps, judge_tasks

PROMPTS = load_prompts(PromptsConfig())
TASKS = [("t1", "Sing a song."), ("t2", "Name a river.")]
BOTH = ("feasible_first", "infeasible_first")


def judge(engine, tasks=TASKS, *, config=None, **options):
    settings = {"run_seed": 3, "iteration": 2, "stage": "classify", "engine_name": "e", "policy": "p"} | options
    return judge_tasks(engine, tasks, config=config or VerdictConfig(), prompts=PROMPTS, **settings)


def test_constrained_rows(rule_engine):
    rows = judge(rule_engine(lambda user: 0.25, mass=0.4))
    assert [(r.task_id, r.sample) for r in rows] == [(t, j) for t in ("t1", "t2") for j in range(8)]
    for row in rows:
        assert row.p_infeasible == pytest.approx(0.25)
        assert row.label_mass == pytest.approx(0.4)
        assert row.text == row.verdict
        assert row.token_ids == ([3] if row.verdict == "feasible" else [4, 5])
        assert len(row.logprobs) == len(row.token_ids)
        assert row.prompt_token_ids == [1, 2]
        assert (row.view, row.engine, row.policy) == ("feasible_first", "e", "p")
        assert row.prompt_sha256 == PROMPTS.verdict_constrained.sha256
    assert len({r.seed for r in rows}) == 2


def test_draws_follow_the_probability(rule_engine):
    rows = judge(rule_engine(lambda user: 0.25), [(str(i), "Sing.") for i in range(100)], k=20)
    share = sum(r.verdict == "infeasible" for r in rows) / 2000
    assert share == pytest.approx(0.25, abs=0.04)  # four standard errors


def test_a_task_does_not_depend_on_the_others(rule_engine):
    engine = rule_engine()
    assert judge(engine, TASKS)[8:] == judge(engine, TASKS[1:])
    assert judge(engine, TASKS[::-1])[:8] == judge(engine, TASKS)[8:]
    assert [r.verdict for r in judge(engine)] != [r.verdict for r in judge(engine, stage="evaluate")]
    assert [r.verdict for r in judge(engine)] != [r.verdict for r in judge(engine, iteration=3)]


def test_verdicts_go_round_the_views(rule_engine):
    engine = rule_engine(lambda user: 0.999 if user.startswith("infeasible") else 0.001)
    rows = judge(engine, TASKS[:1], config=VerdictConfig(k=5, views=BOTH))
    assert [r.view for r in rows] == [BOTH[0], BOTH[1], BOTH[0], BOTH[1], BOTH[0]]
    assert [r.verdict for r in rows] == ["feasible", "infeasible", "feasible", "infeasible", "feasible"]
    assert len(engine.requests) == 2


def test_fewer_verdicts_than_views(rule_engine):
    engine = rule_engine()
    config = VerdictConfig(k=1, views=BOTH)
    assert [r.view for r in judge(engine, config=config)] == [BOTH[0]] * 2
    assert expected_steps(2, config) == len(engine.requests) == 2
    assert expected_steps(2, config, k=8) == 4


def test_free_rows(rule_engine):
    engine = rule_engine(texts=(" Yes.\nVerdict: feasible", " No.\nVerdict: infeasible", " Hm."))
    config = VerdictConfig(
        mode="free", k=6, views=BOTH, sampling=SamplingConfig(temperature=0.7, top_p=0.9, max_new_tokens=9)
    )
    rows = judge(engine, config=config)
    assert [r.sample for r in rows] == list(range(6)) * 2
    assert [r.verdict for r in rows[:6:2]] == ["feasible", "infeasible", "unparseable"]
    assert [r.view for r in rows[:2]] == list(BOTH)
    assert all(r.p_infeasible is None and r.label_mass is None for r in rows)
    assert rows[0].prompt_sha256 == PROMPTS.verdict_free.sha256
    assert [request.n for request in engine.requests] == [3] * 4
    assert len({request.seed for request in engine.requests}) == 4
    request = engine.requests[0]
    assert (request.temperature, request.top_p, request.max_new_tokens) == (0.7, 0.9, 9)


def test_progress_counts_prompts(rule_engine):
    seen = []
    config = VerdictConfig(views=BOTH)
    judge(rule_engine(), config=config, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 4) for i in range(4)]
    assert expected_steps(2, config) == 4


def test_prompts_hold_the_task_and_no_label_of_it(rule_engine):
    """The same text under different labels gives the same prompt: there is no way in for a label."""
    engine = rule_engine()
    judge(engine, [("it001/feasible/000/00", "Sing a song."), ("it001/infeasible/000/00", "Sing a song.")])
    assert engine.requests[0].turns == engine.requests[1].turns
    assert not any("it001" in turn.content for turn in engine.requests[0].turns)


def test_no_tasks(rule_engine):
    assert judge(rule_engine(), []) == []


def test_duplicate_ids_and_missing_answers(rule_engine):
    with pytest.raises(StageError, match="'t1' stands twice"):
        judge(rule_engine(), [TASKS[0], TASKS[0]])

    class Short(rule_engine):
        def choose(self, requests):
            yield from list(super().choose(requests))[:-1]

    with pytest.raises(StageError, match="got 1 answers from the engine, expected 2"):
        judge(Short())
