"""What is wrong with a warm-up is said before anything is created."""

import pytest

from knowrl_core.config import load_config
from knowrl_core.errors import InputError
from tasks.prepare import prepare


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("warmup.views=[sideways]", r"warmup\.views: got 'sideways'"),
        ("warmup.views=[feasible_first, feasible_first]", r"warmup\.views: got 'feasible_first' twice"),
        ("warmup.share=0", r"warmup\.share is 0\.0 and warmup\.epochs is above 0"),
    ],
)
def test_a_warm_up_that_cannot_be(override, message):
    with pytest.raises(InputError, match=message):
        prepare(load_config("smoke", ["warmup.epochs=1", override]))
