import pytest

from knowrl_core.config.learning import FilterConfig, IntrospectionConfig
from knowrl_core.config.system import PromptsConfig
from knowrl_core.engines.base import GenerateResult, Sample
from knowrl_core.errors import StageError
from knowrl_core.introspection import build_candidates, plan_calls
from knowrl_core.prompts import load_prompts
from knowrl_core.seeds import SeedTask
from knowrl_core.storage.schemas import PoolRecord

PROMPTS = load_prompts(PromptsConfig())
SEEDS = [
    SeedTask(id="f0", task="Name the longest river in Africa.", label="feasible"),
    SeedTask(id="f1", task="Spell the word rhythm.", label="feasible"),
    SeedTask(id="i0", task="Water the plants on my balcony.", label="infeasible"),
    SeedTask(id="i1", task="What did I eat yesterday evening?", label="infeasible"),
]
POOL = [PoolRecord(id="p0", task="Explain how rainbows form.", label="feasible", iteration=1, share=1.0)]


def build(*answers, calls=1, tasks=3, max_candidates=60, finish="stop", pool=POOL, held_out=None):
    config = IntrospectionConfig(
        calls_per_label=calls, tasks_per_call=tasks, shots=2, pool_shots=0, max_candidates=max_candidates,
        filters=FilterConfig(),
    )  # fmt: skip
    plan = plan_calls(config, SEEDS, pool, run_seed=0, iteration=7, prompts=PROMPTS)
    results = [
        GenerateResult(
            prompt_token_ids=(1,), samples=(Sample(text=text, token_ids=(), logprobs=(), finish_reason=finish),)
        )
        for text in answers
    ]
    return build_candidates(
        results, plan, config=config, seeds=SEEDS, pool=pool, iteration=7, engine="e", policy="p", held_out=held_out,
    )  # fmt: skip


def test_lineage_and_ids():
    found = build(" Describe the taste of salt.\n4. Translate cat into German.", " Wash my old car.")
    assert [c.id for c in found] == ["it007/feasible/000/00", "it007/feasible/000/01", "it007/infeasible/000/00"]
    assert [c.task for c in found] == ["Describe the taste of salt.", "Translate cat into German.", "Wash my old car."]
    assert all(c.kept and c.drop_reason is None for c in found)
    first = found[0]
    assert (first.intended, first.iteration, first.call, first.item) == ("feasible", 7, 0, 0)
    assert (first.engine, first.policy, first.finish_reason) == ("e", "p", "stop")
    assert sorted(first.few_shot_ids) == ["f0", "f1"]
    assert first.prompt_sha256 == PROMPTS.introspect_feasible.sha256


def test_near_duplicates_name_what_they_repeat():
    found = build(
        " Name the longest river in Asia.\n4. Explain how rainbows form!\n5. Describe the taste of salt.",
        " Describe the taste of salt!\n4. Wash my old car.",
    )
    assert [(c.drop_reason, c.similar_to) for c in found] == [
        ("duplicate_of_seed", "f0"),
        ("duplicate_in_pool", "p0"),
        (None, None),
        ("duplicate_in_batch", "it007/feasible/000/02"),
        (None, None),
    ]
    assert found[0].similarity == pytest.approx(5 / 6)
    assert found[3].similarity == 1.0


def test_held_out_tasks_are_kept_out_and_name_their_set():
    held_out = {
        "probe": [("q0", "Describe the taste of salt."), ("q1", "Name the longest river in Asia.")],
        "paired": [("a0", "Wash my old blue car."), ("a1", "Describe the taste of salt.")],
    }
    found = build(
        " Describe the taste of salt!\n4. Name the longest river in Africa.\n5. Translate cat into German.",
        " Wash my old red car.\n4. Open the front door.",
        held_out=held_out,
    )
    assert [(c.drop_reason, c.similar_to) for c in found] == [
        ("duplicate_of_probe", "q0"),
        ("duplicate_of_probe", "q1"),  # a seed is more alike, but held-out sets come first
        (None, None),
        ("duplicate_of_paired", "a0"),
        (None, None),
    ]
    assert found[3].similarity == pytest.approx(4 / 5)


def test_a_dropped_candidate_blocks_no_later_one():
    found = build(" Paint my house (infeasible)", " Paint my house (infeasible)\n4. Paint my house now.")
    assert [c.drop_reason for c in found] == ["label_leak", "label_leak", None]


def test_cut_and_surplus_items_are_kept_with_reasons():
    text = " Describe salt to me.\n4. Translate cat into German.\n5. Who wrote Hamlet?"
    found = build(text, "", tasks=2)
    assert [c.drop_reason for c in found] == [None, None, "surplus", "template_echo"]
    found = build(text, "", finish="length")
    assert [c.drop_reason for c in found] == [None, None, "truncated", "truncated"]


def test_both_labels_keep_the_same_number_as_far_as_they_reach():
    yes = " Describe salt to me.\n4. Translate cat into German.\n5. Who wrote Hamlet?"
    no = " Wash my old car.\n4. Open the front door.\n5. What is in my bag?"
    kept = [c.intended for c in build(yes, no, max_candidates=4) if c.kept]
    assert kept == ["feasible", "feasible", "infeasible", "infeasible"]
    found = build(yes, " Wash my old car.", max_candidates=3)
    assert [c.drop_reason for c in found] == [None, None, "surplus", None]
    assert sum(c.kept for c in build(yes, no, max_candidates=1)) == 1


def test_every_call_contributes_to_what_is_kept():
    found = build(
        " Describe salt to me.\n4. Translate cat into German.", " Wash my old car.\n4. Open the front door.",
        " Who wrote Hamlet?", " What is in my bag?",
        calls=2, max_candidates=4,
    )  # fmt: skip
    assert {(c.call, c.item) for c in found if c.kept} == {(0, 0), (1, 0)}


def test_missing_results():
    with pytest.raises(StageError, match="got 1 generation results, expected 2"):
        build(" Wash my old car.")
