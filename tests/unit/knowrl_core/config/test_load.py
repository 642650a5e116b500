"""Profiles, overrides, and errors that say file, line, field, value and what is allowed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.config import Config, build_config, deep_merge, load_config, profiles
from knowrl_core.config.document import parse_yaml
from knowrl_core.config.load import parse_override
from knowrl_core.errors import InputError


def fields(section, prefix=""):
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field
        if hasattr(field.annotation, "model_fields"):
            yield from fields(field.annotation, f"{prefix}{name}.")


def test_every_field_is_documented():
    undocumented = [name for name, field in fields(Config) if not field.description]
    assert undocumented == []


def test_the_four_profiles_load():
    assert profiles() == ["cpu", "llama31-8b", "qwen25-7b", "smoke"]
    for name in profiles():
        assert load_config(name).run.name == name


@pytest.mark.parametrize("name", ["llama31-8b", "qwen25-7b"])
def test_published_hyperparameters(name):
    config = load_config(name)
    assert config.verdict.k == 8
    assert config.rl.train_batch_size == config.rl.rollout_batch_size == 16
    assert (config.rl.learning_rate, config.rl.kl_coef, config.rl.epochs) == (5e-7, 1e-4, 1)
    assert config.rl.max_prompt_tokens == config.verdict.sampling.max_new_tokens == 1024
    assert 10 <= 2 * config.introspection.calls_per_label <= 15
    assert 50 <= config.introspection.max_candidates <= 60
    assert config.run.iterations == 30


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl.lerning_rate=1", ["rl.lerning_rate", "unknown key", "did you mean 'learning_rate'"]),
        ("rl.clip=2", ["rl.clip", "got 2", "less than 1"]),
        ("rl.betas=[1.0, 0.95]", ["rl.betas", "got 1.0", "less than 1"]),
        ("run.iterations=-1", ["run.iterations", "got -1", "greater than or equal to 0"]),
        ("run.iterations=true", ["run.iterations", "got True", "integer"]),
        ("verdict.k=8.5", ["verdict.k", "got 8.5", "integer"]),
        ("verdict.mode=guess", ["verdict.mode", "'constrained' or 'free'"]),
        ("run.name=../x", ["run.name", "got '../x'"]),
        ("run.name=a/b", ["run.name"]),
        ("run.name=..", ["run.name"]),
        ("rl.kl_coef=.inf", ["rl.kl_coef", "finite"]),
        ("rl.learning_rate=fast", ["rl.learning_rate", "got 'fast'", "number"]),
        ("introspection.pool_shots=30", ["pool_shots is 30", "less than shots"]),
        ("rl=3", ["is a section", "rl.algorithm"]),
        ("tracking.uri=postgresql://me:s3cret@db/x", ["without a password", "me:***@db"]),
        ("nothing", ["expected section.field=value"]),
        ("nope.x=1", ["unknown key 'nope'", "allowed here: run, model"]),
        ("rl.kl_coef=!!python/object:os.system x", ["not valid YAML"]),
    ],
)
def test_a_wrong_override_names_itself_and_what_is_allowed(override, expected):
    with pytest.raises(InputError) as caught:
        load_config("smoke", [override])
    assert override in str(caught.value) or override.partition("=")[0] in str(caught.value)
    for text in expected:
        assert text in str(caught.value)
    assert "s3cret" not in str(caught.value).replace(f"--set {override}", "")


def test_a_wrong_file_names_file_and_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("run:\n  name: x\nrl:\n  kl_coef: 0.1\n  clip: 7\n  wrong: 1\n")
    with pytest.raises(InputError) as caught:
        load_config(str(file))
    assert f"{file}:5: rl.clip: got 7, expected less than 1" in str(caught.value)
    assert f"{file}:6: rl.wrong: unknown key" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run: {name: a}\nrun: {name: b}\n", "2: key 'run' is given twice"),
        ("a: &x 1\nb: *x\n", "anchors"),
        ("- 1\n", "got list"),
        ("run: [1\n", "not valid YAML"),
        ("run:\n  name: !!python/name:os.system\n", "not valid YAML"),
    ],
)
def test_broken_yaml(tmp_path, text, expected):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r".+") as caught:
        load_config(str(file))
    assert expected in str(caught.value)


def test_unknown_profile_and_missing_file_name_the_profiles():
    for source in ("nope", "nope.yaml", "../nope"):
        with pytest.raises(InputError) as caught:
            load_config(source)
        assert "smoke" in str(caught.value)


def test_text_fields_keep_numbers_as_text():
    assert load_config("smoke", ["run.name=123"]).run.name == "123"
    assert load_config("smoke", ["model.revision=1e5"]).model.revision == "1e5"
    assert load_config("smoke", ["model.revision=null"]).model.revision is None


def test_numbers_without_a_dot_are_numbers(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("rl:\n  learning_rate: 5e-7\n")
    assert load_config(str(file)).rl.learning_rate == 5e-7


def test_the_last_override_wins():
    assert load_config("smoke", ["verdict.k=3", "verdict.k=5"]).verdict.k == 5


def test_a_config_survives_json():
    for name in profiles():
        config = load_config(name)
        assert build_config(config.model_dump(mode="json")) == config
        assert build_config(json.loads(config.model_dump_json())) == config


def test_deep_merge_keeps_both_inputs():
    base, top = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}
    assert deep_merge(base, top) == {"a": {"b": 3, "c": 2}, "d": 4}
    assert base == {"a": {"b": 1, "c": 2}}


@given(st.text(max_size=200))
def test_any_text_is_data_or_a_clear_error(text):
    problem = refusal(lambda: parse_yaml(text, "file.yaml"))
    assert problem is None or problem.startswith("file.yaml")


@given(st.text(max_size=60))
def test_any_override_is_taken_or_refused(text):
    problem = refusal(lambda: parse_override(text))
    assert problem is None or "--set" in problem


def refusal(action):
    try:
        action()
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("text", ["/a [b]/c", "[x", "a: b", "/a #b", "{", "- x", "5e-7", "!x", "&x"])
def test_text_fields_take_what_means_something_in_yaml(text):
    assert load_config("smoke", [f"files.probe={text}"]).files.probe == text
    assert load_config("smoke", [f'files.probe="{text}"']).files.probe == text


def test_a_root_holds_no_control_characters():
    for text in ("a\0b", "a\nb", "\x1b[2J"):
        assert "without control characters" in refusal(lambda text=text: load_config("smoke", [f"run.root={text}"]))


def test_deep_nesting_is_refused_at_once():
    assert "50 levels" in refusal(lambda: parse_yaml("[" * 100_000, "file.yaml"))


def test_text_that_is_not_utf_8_is_refused():
    assert "expected text in UTF-8" in refusal(lambda: load_config("smoke", ["run.root=a\udcffb"]))


def test_an_action_may_be_a_plain_off():
    """YAML 1.1 reads it as false."""
    for value in (False, "off"):
        assert build_config({"guards": {"kl": {"action": value}}}, source="test").guards.kl.action == "off"
    with pytest.raises(InputError, match="action"):
        build_config({"guards": {"kl": {"action": True}}}, source="test")


@pytest.fixture
def layered(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "lower.yaml").write_text("base: smoke\nrl:\n  kl_coef: 0.5\n  epochs: 3\n")
    (tmp_path / "top.yaml").write_text("base: below/lower.yaml\nrl:\n  epochs: 2\nrun: {name: top}\n")
    return tmp_path


def test_a_file_builds_on_another_by_its_place(layered, monkeypatch):
    monkeypatch.chdir("/")
    config = load_config(str(layered / "top.yaml"), ["rl.clip=0.1"])

    assert (config.rl.kl_coef, config.rl.epochs, config.rl.clip, config.run.name) == (0.5, 2, 0.1, "top")
    assert config.model == load_config("smoke").model


def test_an_error_names_the_file_that_it_stands_in(layered):
    (layered / "below" / "lower.yaml").write_text("base: smoke\nrl:\n  kl_coef: much\n  epochs: 0\n")

    with pytest.raises(InputError) as caught:
        load_config(str(layered / "top.yaml"))

    assert f"{layered / 'below' / 'lower.yaml'}:3: rl.kl_coef: got 'much'" in caught.value.message
    assert "epochs" not in caught.value.message


def test_what_wins_is_named_in_errors(layered):
    (layered / "top.yaml").write_text("base: below/lower.yaml\nrl:\n  epochs: 0\n")

    with pytest.raises(InputError, match=r"top\.yaml:3: rl\.epochs: got 0"):
        load_config(str(layered / "top.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base: top.yaml", r"top\.yaml:1: base: got a circle \(top\.yaml -> top\.yaml\)"),
        ("base: below/../below/circle.yaml", r"circle\.yaml:1: base: got a circle"),
        ("base: none.yaml", r"top\.yaml:1: base: config 'none\.yaml': no such file"),
        ("base: smok", r"top\.yaml:1: base: unknown profile 'smok'"),
        ("base: [smoke]", r"top\.yaml:1: base: got \['smoke'\]"),
        ("base:", r"top\.yaml:1: base: got None"),
    ],
)
def test_a_base_that_is_none(layered, text, expected):
    (layered / "below" / "circle.yaml").write_text("base: ../top.yaml\n")
    (layered / "top.yaml").write_text(text + "\n")

    with pytest.raises(InputError, match=expected):
        load_config(str(layered / "top.yaml"))
