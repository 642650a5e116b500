"""The flow's parameters become one config."""

import pytest

from flows.train import resolve
from knowrl_core.config import Config, anchored, load_config
from knowrl_core.errors import InputError


def test_given_fields_win_over_the_profile_and_the_rest_stays():
    config = Config.model_validate({"rl": {"kl_coef": 0.5}, "run": {"iterations": 2}})
    resolved = resolve("smoke", None, config)
    expected = load_config("smoke", ["rl.kl_coef=0.5", "run.iterations=2"])
    assert resolved == anchored(expected)


def test_a_field_given_with_its_default_wins_too():
    default = Config().verdict.k
    assert load_config("smoke").verdict.k != default
    assert resolve("smoke", None, Config.model_validate({"verdict": {"k": default}})).verdict.k == default


def test_the_run_name_wins_over_all():
    config = Config.model_validate({"run": {"name": "inner"}})
    assert resolve("smoke", "outer", config).run.name == "outer"
    assert resolve("smoke", None, config).run.name == "inner"


def test_wrong_parameters_are_input_errors():
    with pytest.raises(InputError, match="unknown profile"):
        resolve("nope", None, None)
    with pytest.raises(InputError, match=r"run\.name"):
        resolve("smoke", "../x", None)
