"""``knowrl evaluate`` as far as it needs no model."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from knowrl_core.errors import InputError
from knowrl_core.evaluation import BENCHMARKS


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *arguments])


@pytest.fixture
def tasks(tmp_path):
    row = {"id": "", "task": "", "generated_as": "", "classified_as": "feasible", "self_knowledge_type": "x"}
    rows = [
        row | {"id": str(n), "task": f"{'Call' if n % 2 else 'Name'} {n}.", "generated_as": label}
        for n in range(30)
        for label in [("infeasible" if n % 2 else "feasible")]
    ]
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_list_shows_licence_and_citation():
    shown = run("--list")
    assert shown.exit_code == 0
    for benchmark in BENCHMARKS.values():
        assert benchmark.name in shown.output
        assert benchmark.licence in shown.output
        assert benchmark.citation in shown.output
    listed = json.loads(run("--list", "--json").output)
    assert [item["name"] for item in listed] == list(BENCHMARKS)


def test_without_a_model_only_controls_are_shown(tasks):
    found = json.loads(run("--benchmark=lineofduty", f"--path={tasks}", "--json").stdout)["benchmarks"][0]
    assert found["metrics"] == {}
    assert found["controls"]["tfidf"]["f1"]["value"] == 1
    assert found["controls"]["always_infeasible"]["f1"]["value"] == pytest.approx(2 / 3)
    shown = run("--benchmark=lineofduty_agreed", "--benchmark=probe", f"--path={tasks.parent}")
    assert shown.exit_code == 0
    assert "left out: 15 rows, since its author classified it the other way" in shown.output
    assert "probe: 132 tasks" in shown.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "got no model, expected --model"),
        (["--benchmark=selfawre"], "unknown benchmark 'selfawre'"),
        (["--benchmark=probe", "--benchmark=probe"], "expected each once"),
        (["--benchmark=kuq", "--path=a", "--path=b"], "got 2 paths, expected one for each of kuq"),
        (["--benchmark=selfaware"], "not on the Hugging Face Hub"),
        (["--benchmark=selfaware", "--path=/absent/x.json"], "got nothing, expected SelfAware.json"),
        (["--benchmark=probe", "--baseline=/absent/x.parquet"], "no prediction file"),
        (["--benchmark=probe", "--views=sideways", "--model=tiny-random"], "'sideways', expected the name of a view"),
    ],
)
def test_wrong_input(arguments, problem):
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert problem in str(result.exception)
