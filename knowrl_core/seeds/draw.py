"""Which seeds a supervised warm-up trains on."""

from collections.abc import Collection, Sequence

from knowrl_core.labels import LABELS
from knowrl_core.rng import stream
from knowrl_core.seeds.model import SeedTask, normalise


def draw_seeds(
    seeds: Sequence[SeedTask], *, share: float, run_seed: int, held_out: Collection[str] = ()
) -> list[SeedTask]:
    """Draw the same share of each label, at least one, from the stream (run seed, ``warmup``, label).

    Args:
        seeds: All seeds.
        share: Share drawn, above 0.
        run_seed: The run's seed.
        held_out: Texts that measure, and so are never trained on, should they be seeds as well.

    Returns:
        The seeds drawn, in their order.
    """
    measured = {normalise(text) for text in held_out}
    usable = [seed for seed in seeds if normalise(seed.task) not in measured]
    chosen: set[str] = set()
    for label in LABELS:
        own = [seed.id for seed in usable if seed.label == label]
        count = max(1, round(share * len(own)))
        chosen.update(own[place] for place in stream(run_seed, "warmup", label).permutation(len(own))[:count])
    return [seed for seed in usable if seed.id in chosen]
