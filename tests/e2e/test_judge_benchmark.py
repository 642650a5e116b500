"""The comparison of ``knowrl judge`` with its engine, on a model that takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]


def compared(*arguments):
    return subprocess.run(
        [sys.executable, "benchmarks/judge.py", "--model=tiny-random", "--threads=1", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_both_sides_answer_all_and_the_ratio_is_that_of_their_times(tmp_path):
    done = compared("--lines=300", f"--json={tmp_path / 'judge.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["unit"]: row for row in json.loads((tmp_path / "judge.json").read_text())}
    assert rows["s"]["case"] == "judge 300 lines, constrained"
    assert rows["s"]["ours"] > 0
    assert rows["s"]["ratio"] == pytest.approx(1 / rows["lines/s"]["ratio"], rel=0.01)
    assert "times as long as its engine alone" in done.stdout


def test_more_than_the_bound_is_exit_code_1():
    assert compared("--lines=5", "--bound=0.001").returncode == 1
