import pytest

from knowrl_core.config.learning import IntrospectionConfig, SamplingConfig
from knowrl_core.config.system import PromptsConfig
from knowrl_core.errors import InputError
from knowrl_core.introspection import plan_calls
from knowrl_core.prompts import load_prompts
from knowrl_core.seeds import SeedTask
from knowrl_core.storage.schemas import PoolRecord

SEEDS = [
    SeedTask(id=f"{label[0]}{i}", task=f"{label} seed number {i}", label=label)
    for label in ("feasible", "infeasible")
    for i in range(10)
]
CONFIG = IntrospectionConfig(calls_per_label=3, tasks_per_call=4, shots=5, pool_shots=2)
PROMPTS = load_prompts(PromptsConfig())


def pool(label, count):
    return [PoolRecord(id=f"p{i}", task=f"pool task {i}", label=label, iteration=1, share=1.0) for i in range(count)]


def plan(config=CONFIG, seeds=SEEDS, pool=(), run_seed=1, iteration=2):
    return plan_calls(config, seeds, pool, run_seed=run_seed, iteration=iteration, prompts=PROMPTS)


def test_calls_of_both_labels_take_turns():
    calls = plan()
    assert [(c.label, c.call) for c in calls] == [
        (label, call) for call in range(3) for label in ("feasible", "infeasible")
    ]
    assert len({c.request.seed for c in calls}) == 6
    assert len({c.few_shot_ids for c in calls}) == 6
    for call in calls:
        assert len(call.few_shot_ids) == len(set(call.few_shot_ids)) == 5
        assert {i[0] for i in call.few_shot_ids} == {call.label[0]}
        assert call.next_number == 6
        assert call.prefilled
        assert call.request.stop == ("\n10.",)
        assert call.request.turns[-1].content.endswith("\n6.")
        assert call.prompt_sha256 == PROMPTS.introspection(call.label).sha256
        assert "seed number" not in call.instructions
        shown = [line.partition(". ")[2] for line in call.request.turns[-1].content.splitlines()[-6:-1]]
        assert shown == [next(s.task for s in SEEDS if s.id == i) for i in call.few_shot_ids]


def test_the_plan_depends_on_seed_iteration_and_nothing_else():
    assert plan() == plan()
    assert plan(run_seed=2)[0].few_shot_ids != plan()[0].few_shot_ids
    assert plan(iteration=3)[0].request.seed != plan()[0].request.seed
    fewer = CONFIG.model_copy(update={"calls_per_label": 1})
    assert plan(fewer) == plan()[:2]


def test_shots_are_mixed_from_the_pool_when_it_has_enough_of_the_label():
    calls = plan(pool=pool("feasible", 2))
    for call in calls:
        assert sum(i.startswith("p") for i in call.few_shot_ids) == (2 if call.label == "feasible" else 0)
    assert not any(i.startswith("p") for call in plan(pool=pool("feasible", 1)) for i in call.few_shot_ids)
    places = {place for call in calls for place, i in enumerate(call.few_shot_ids) if i.startswith("p")}
    assert len(places) > 2  # shuffled together, not at one end


def test_sampling_settings_are_passed_on():
    config = CONFIG.model_copy(update={"sampling": SamplingConfig(temperature=0.3, top_p=0.4, max_new_tokens=7)})
    request = plan(config)[0].request
    assert (request.temperature, request.top_p, request.max_new_tokens, request.n) == (0.3, 0.4, 7, 1)


def test_too_few_seeds():
    with pytest.raises(InputError, match="got 4 feasible seeds, expected at least 5"):
        plan(seeds=SEEDS[6:])


def test_a_seed_on_several_lines_stays_one_item():
    seeds = [*SEEDS[:4], SeedTask(id="f9", task="two\n\nlines", label="feasible"), *SEEDS[10:]]
    assert "two lines" in plan(seeds=seeds)[0].request.turns[-1].content
