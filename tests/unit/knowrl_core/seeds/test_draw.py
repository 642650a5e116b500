from collections import Counter

from knowrl_core.seeds import SeedTask
from knowrl_core.seeds.draw import draw_seeds

SEEDS = [SeedTask(id=f"f{i}", task=f"Add {i} and 1.", label="feasible") for i in range(10)] + [
    SeedTask(id=f"i{i}", task=f"Lift stone {i}.", label="infeasible") for i in range(6)
]


def test_the_same_share_of_each_label_in_the_order_of_the_seeds():
    drawn = draw_seeds(SEEDS, share=0.5, run_seed=1)
    assert Counter(seed.label for seed in drawn) == {"feasible": 5, "infeasible": 3}
    assert drawn == [seed for seed in SEEDS if seed in drawn]
    assert drawn == draw_seeds(SEEDS, share=0.5, run_seed=1)
    assert drawn != draw_seeds(SEEDS, share=0.5, run_seed=2)


def test_all_and_at_least_one():
    assert draw_seeds(SEEDS, share=1.0, run_seed=1) == SEEDS
    assert Counter(seed.label for seed in draw_seeds(SEEDS, share=0.01, run_seed=1)) == {"feasible": 1, "infeasible": 1}


def test_what_measures_is_never_trained_on():
    drawn = draw_seeds(SEEDS, share=1.0, run_seed=1, held_out=["ADD 3 and 1", "Lift stone 0."])
    assert {seed.id for seed in SEEDS} - {seed.id for seed in drawn} == {"f3", "i0"}
