"""``knowrl models export`` and ``knowrl judge``: what a trained model is used with."""

import json
import shutil
import subprocess

import pytest
import yaml

from knowrl_core.models.export import model_card
from knowrl_core.storage.files import sha256_file
from tests.e2e.helpers import KNOWRL, environment_of, knowrl

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def exported(reference, home, tmp_path_factory):
    target = tmp_path_factory.mktemp("exported") / "model"
    knowrl("models", "export", str(reference), "--iteration=last", "--to", str(target), home=home, check=0)
    return target


def test_the_folder_is_one_that_transformers_loads(exported, reference):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    checkpoint = reference / "iterations" / "001" / "update" / "checkpoint"
    assert sha256_file(exported / "model.safetensors") == sha256_file(checkpoint / "model.safetensors")
    assert model.num_parameters() > 0
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert not (exported / "optimizer").exists()
    assert not (exported / "trainer_state.json").exists()
    facts = json.loads((exported / "metrics.json").read_text())
    assert facts["iteration"] == 1
    manifest = json.loads((checkpoint.parent.parent / "evaluate" / "manifest.json").read_text())
    assert facts["metrics"] == manifest["metrics"]
    card = (exported / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert f"| probe | f1 | {facts['base_metrics']['probe/f1']:.3f} | {facts['metrics']['probe/f1']:.3f} |" in card


@pytest.mark.parametrize(
    ("iteration", "named"),
    [("7", "no such iteration"), ("0", "the model that the run began with"), ("x", "expected best, last or a number")],
)
def test_an_iteration_that_is_not_there_is_named(iteration, named, reference, home, tmp_path):
    done = knowrl(
        "models", "export", str(reference), f"--iteration={iteration}", "--to", str(tmp_path / "m"), home=home, check=2
    )
    assert named in done.stderr
    assert "Checkpoints are there of: 1." in done.stderr
    assert not (tmp_path / "m").exists()


def test_a_folder_with_something_in_it_is_left_alone(reference, home, tmp_path):
    (tmp_path / "mine").write_text("x")
    done = knowrl("models", "export", str(reference), "-i", "last", "--to", str(tmp_path), home=home, check=2)
    assert "expected a new or empty folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_altered_checkpoint_is_not_exported(reference, home, tmp_path):
    copy = tmp_path / "runs" / "smoke"
    shutil.copytree(reference, copy)
    weights = copy / "iterations" / "001" / "update" / "checkpoint" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = knowrl("models", "export", str(copy), "-i", "last", "--to", str(tmp_path / "m"), home=home, check=4)
    assert "model.safetensors" in done.stderr
    assert not (tmp_path / "m").exists()


def test_a_card_shows_hostile_names_as_text():
    facts = {
        "run": "r", "run_id": "1", "iteration": 3, "finished": "now", "code_version": "1", "metrics": None,
        "base_metrics": None, "config": {"model": {"path": "x"}},
        "base_model": "a`<script>alert(1)</script>\n# b: [c](d)",
    }  # fmt: skip
    card = model_card(facts)
    front = yaml.safe_load(card.split("---")[1])
    assert "base_model" not in front
    [line] = [line for line in card.splitlines() if "<script>" in line]
    assert "`` a`<script>alert(1)</script>?# b: [c](d) ``" in line


def piped(lines, *arguments, home):
    done = subprocess.run(
        [*KNOWRL, "judge", *arguments],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=environment_of(home),
    )
    return done, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_thousand_lines_are_answered_in_order(exported, home):
    lines = [json.dumps({"id": n, "task": f"Count to {n % 700}."}) for n in range(1_000)]
    done, answers = piped(lines, "--model", str(exported), "--config=smoke", home=home)
    assert done.returncode == 0, done.stderr
    assert "temperature" in done.stderr
    assert [answer["id"] for answer in answers] == list(range(1_000))
    for n, answer in enumerate(answers):
        assert answer["task"] == f"Count to {n % 700}."
        assert answer["verdict"] in ("feasible", "infeasible")
        assert 0.5 <= answer["confidence"] <= 1
        assert sum(answer["votes"].values()) == 4
    for n in range(300):  # the same task far away in the stream
        assert answers[n]["p_infeasible"] == pytest.approx(answers[n + 700]["p_infeasible"], abs=1e-4)
        assert answers[n]["votes"] == answers[n + 700]["votes"]


def test_lines_that_are_no_tasks_are_answered_with_what_is_wrong(exported, home):
    lines = [
        '{"task": "Name a river.", "error": "mine", "keep": [1]}',
        "{",
        '"Name a hill."',
        "7",
        '{"task": ""}',
        "x" * 70_000,
    ]
    done, answers = piped(lines, "--model", str(exported), "--config=smoke", "--raw", home=home)
    assert done.returncode == 2
    assert "4 lines could not be read" in done.stderr
    assert [answer.get("line") for answer in answers] == [None, 2, None, 4, 5, 6]
    assert answers[0]["keep"] == [1]
    assert "error" not in answers[0]
    assert answers[2]["verdict"]
    assert "Traceback" not in done.stderr


def test_tasks_on_the_command_line_and_reasons(exported, home):
    nasty = "[red]Draw[/red] \x1b[31m a line"
    done = knowrl("judge", "-m", str(exported), "--config=smoke", "--raw", nasty, "Sing.", home=home, check=0)
    assert "\x1b" not in done.stdout
    assert "[red]Draw[/red]" in done.stdout
    assert len(done.stdout.splitlines()) == 2
    shown = knowrl(
        *("judge", "-m", str(exported), "--config=smoke", "--raw", "--reason", "--json", "Sing."), home=home, check=0
    )
    assert {"verdict", "votes", "reason"} <= json.loads(shown.stdout).keys()
