"""What the tests of the metrics share."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import strategies as st

from knowrl_core.evaluation.outcomes import Outcomes


def make_outcomes(truth, said, score=None, unit=None):
    """Outcomes from lists; ``said`` holds 0 (feasible), 1 (infeasible) or None."""
    score = [0.5 if s is None else float(s) for s in said] if score is None else score
    return Outcomes(
        truth=np.array(truth, dtype=bool),
        said_infeasible=np.array([s == 1 for s in said], dtype=bool),
        said_feasible=np.array([s == 0 for s in said], dtype=bool),
        score=np.array(score, dtype=float),
        unit=np.arange(len(truth)) if unit is None else np.array(unit, dtype=np.int64),
    )


ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0, 1, None]), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.55, 0.9, 1.0])),
    min_size=2,
    max_size=20,
)


@pytest.fixture(scope="session")
def noisy():
    """200 tasks of which a noisy score tells something."""
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.4
    score = np.clip(0.3 * truth + 0.7 * rng.random(200), 0, 1)
    return SimpleNamespace(truth=truth, score=score, outcomes=make_outcomes(truth, (score > 0.5).astype(int), score))
