"""DeepSpeed's config and its user's file. Nothing here loads DeepSpeed."""

import json
import subprocess
import sys

import pytest

from knowrl_core.config.rl import DeepSpeedConfig, RLConfig
from knowrl_core.errors import InputError
from knowrl_core.resources import shipped
from knowrl_core.rl.distributed.config import check_deepspeed, deepspeed_settings


def rl(**options):
    return RLConfig(trainer="deepspeed", max_grad_norm=0.5, deepspeed=DeepSpeedConfig(**options))


@pytest.fixture
def file(tmp_path):
    """Writes the user's file; gives its path."""

    def write(settings):
        path = tmp_path / "deepspeed.json"
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings), encoding="utf-8")
        return str(path)

    return write


def test_what_the_run_says():
    plain = deepspeed_settings(rl(stage=1))
    assert plain["gradient_clipping"] == 0.5
    assert plain["zero_optimization"]["stage"] == 1
    assert "offload_optimizer" not in plain["zero_optimization"]
    split = deepspeed_settings(rl(stage=3, offload_optimizer=True, offload_parameters=True))["zero_optimization"]
    assert split["offload_optimizer"]["device"] == split["offload_param"]["device"] == "cpu"


def test_a_file_is_merged(file):
    name = file(
        {
            "gradient_clipping": 0.5,
            "zero_optimization": {"stage": 2, "overlap_comm": True, "offload_optimizer": {"pin_memory": True}},
            "wall_clock_breakdown": True,
        }
    )
    settings = deepspeed_settings(rl(stage=2, offload_optimizer=True, config=name))
    assert settings["wall_clock_breakdown"] is True
    zero = settings["zero_optimization"]
    assert (zero["overlap_comm"], zero["contiguous_gradients"]) == (True, True)
    assert zero["offload_optimizer"] == {"device": "cpu", "pin_memory": True}


@pytest.mark.parametrize(
    ("settings", "got", "setting"),
    [
        (
            {"zero_optimization": {"stage": 3}},
            "zero_optimization.stage to 3, expected 2 or nothing",
            "rl.deepspeed.stage",
        ),
        ({"gradient_clipping": 1.0}, "gradient_clipping to 1.0, expected 0.5 or nothing", "rl.max_grad_norm"),
        ({"optimizer": {"type": "Adam"}}, 'optimizer.type to "Adam", expected nothing', "rl.learning_rate"),
        ({"bf16": {"enabled": True}}, "bf16.enabled to true, expected nothing", "rl.precision"),
        ({"train_batch_size": "auto"}, 'train_batch_size to "auto", expected nothing', "rl.train_batch_size"),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            'offload_optimizer.device to "cpu", expected nothing',
            "rl.deepspeed.offload_optimizer",
        ),
        (
            {"zero_optimization": {"offload_param": {"pin_memory": True}}},
            'offload_param to {"pin_memory": true}, expected nothing',
            "rl.deepspeed.offload_parameters",
        ),
    ],
)
def test_a_file_that_says_otherwise_is_refused(file, settings, got, setting):
    name = file(settings)
    with pytest.raises(InputError) as error:
        deepspeed_settings(rl(config=name))
    assert name in error.value.message
    assert got in error.value.message
    assert setting in error.value.message
    assert setting in error.value.hint


def test_a_name_that_nobody_reads_is_refused(file):
    with pytest.raises(
        InputError, match=r"deepspeed.json sets 'zero_optimisation', expected one of .*zero_optimization"
    ):
        deepspeed_settings(rl(config=file({"zero_optimisation": {}})))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"zero_optimization": 2}'])
def test_a_file_that_is_no_object_is_refused(file, text):
    with pytest.raises(InputError, match=r"deepspeed.json.* expected"):
        deepspeed_settings(rl(config=file(text)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*nowhere.json"):
        check_deepspeed(rl(config=str(tmp_path / "nowhere.json")))
    with pytest.raises(InputError, match=r"hostfile: .*nowhere does not exist"):
        check_deepspeed(rl(hostfile=str(tmp_path / "nowhere")))


def test_without_deepspeed_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("knowrl_core.rl.distributed.config.find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        check_deepspeed(rl())
    assert "pip install 'knowrl[deepspeed]'" in error.value.hint


@pytest.mark.parametrize(
    ("name", "options"),
    [("zero2", {"stage": 2}), ("zero3-offload", {"stage": 3, "offload_optimizer": True, "offload_parameters": True})],
)
def test_examples_are_valid(name, options):
    settings = deepspeed_settings(rl(config=str(shipped("configs", "deepspeed", f"{name}.json")), **options))
    assert settings["steps_per_print"] == 100


def test_nothing_heavy_is_imported():
    """The command line checks a config with it before a run starts."""
    code = (
        "import sys, knowrl_core.rl.distributed.config; sys.exit(any(n in sys.modules for n in ('torch', 'deepspeed')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
