"""How a run looks on a terminal."""

import io

import pytest
from rich.console import Console

from flows.cli.view import RunView
from knowrl_core.report import StageProgress, Standing, iteration_rows
from knowrl_core.storage.layout import StageKey, stage_keys
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.schemas import GuardRecord

HOSTILE = "[red]x[/red]\x1b[31m"


def manifest(key, seconds=10.0, **metrics):
    return Manifest(
        stage=key.stage, iteration=key.iteration, signature="s", seed=0, config={}, inputs=(), outputs=(),
        metrics=metrics, code_version="v", started="a", finished="b", seconds=seconds,
    )  # fmt: skip


def standing(*, evaluated=3, iterations=30, run="first", firings=(), reward=0.9, truth=0.5):
    """A run in its next iteration, which has an update and no evaluation."""
    keys = tuple(stage_keys(iterations, warmup=False))
    history = {}
    for key in keys:
        if key.iteration > evaluated + 1 or key == StageKey(evaluated + 1, "evaluate"):
            break
        metrics = {}
        if key.stage == "update":
            metrics = {"reward/mean": reward}
        elif key.stage == "evaluate":
            metrics = {"probe/balanced_accuracy": truth, "probe/accuracy": truth, "probe/called_feasible": 0.75}
        history[key] = manifest(key, **metrics)
    intervals = dict.fromkeys(range(evaluated + 1), (truth - 0.12, truth + 0.12))
    return Standing(run, keys, history, iteration_rows(history, intervals), list(firings))


def firing(iteration=2, guard="label_balance", message="97 % called feasible, above 0.95"):
    return GuardRecord(iteration, guard, "m", 0.97, 0.95, "warn", message)


def screen(view, width=80, height=40, encoding="utf-8", **more):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None, **more)
    console.print(view)
    file.flush()
    return [line.rstrip() for line in file.buffer.getvalue().decode(encoding).rstrip().split("\n")]


UNDER_WAY = StageProgress(
    stage="004/evaluate", done=24, total=48, seconds=6.0, per_second=4.0, tokens_per_second=1240.4
)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_running_stage(width):
    lines = screen(RunView(standing(firings=[firing()]), UNDER_WAY, "process 12 on here, started 2026-01-01"), width)
    assert all(len(line) <= width for line in lines)
    assert "iteration 4 of 30" in lines[0]
    assert "21/152 stages" in lines[1]
    assert "24/48 prompts" in lines[2]
    assert ("1,240 tokens/s" in lines[2]) == (width >= 80)
    assert "5 s left" in lines[2], "half of it at its own speed (6 s), half as long as before (4 s)"
    assert "process 12 on here" in lines[3]
    last = next(line for line in lines if line.strip().startswith("3 "))
    assert "0.900" in last
    assert "0.500 [0.38, 0.62]" in last
    assert "0.75" in last
    assert ("●" in last) == (width >= 80)
    assert "label_ba" in next(line for line in lines if line.strip().startswith("2 "))
    assert "guard label_balance (warn): 97 % called" in lines[-1]


def rows_of(lines):
    return [line.split() for line in lines if line.split() and line.split()[0].isdigit()]


def test_a_reward_has_the_truth_beside_it():
    *_, last = rows_of(screen(RunView(standing(), None)))
    assert last == ["4", "0.900", "0.500", "(iteration", "3)", "-"]
    alone = StageKey(1, "update")
    history = {alone: manifest(alone, **{"reward/mean": 0.9})}
    nothing_evaluated = Standing("r", (alone, StageKey(1, "evaluate")), history, iteration_rows(history), [])
    assert rows_of(screen(RunView(nothing_evaluated, None))) == [["1", "-", "-", "-", "warm-up"]]


def test_texts_are_no_markup():
    hostile = standing(run=HOSTILE, firings=[firing(guard=HOSTILE, message=f"{HOSTILE}\nsecond line")])
    text = "\n".join(screen(RunView(hostile, None, note=HOSTILE), width=120))
    assert text.count("[red]x[/red]\\x1b[31m") == 5, "name, note, row, and twice in the line of the guard"
    assert "\x1b" not in text


@pytest.mark.parametrize("height", [10, 20])
def test_a_long_run_fits_the_screen(height):
    lines = screen(RunView(standing(evaluated=25, firings=[firing()] * 9), UNDER_WAY), height=height)
    assert len(lines) <= max(height, 14)
    shown = [int(row[0]) for row in rows_of(lines)]
    assert shown[-1] == 26
    if height > 14:
        assert shown[0] == 0, "the first and the best stay"
        assert "reward █████" in "\n".join(lines), "the others are seen as a picture"


def test_a_terminal_without_unicode():
    text = "\n".join(screen(RunView(standing(firings=[firing()]), UNDER_WAY, "x" * 100), encoding="ascii"))
    assert "|   3  | 0.900  |0.500 [0.38, 0.62]   |     --t--   r   |" in text


def test_before_anything_is_committed():
    keys = tuple(stage_keys(3, warmup=False))
    loading = StageProgress(stage="000/generate", seconds=12.2)
    lines = screen(RunView(Standing("r", keys, {}, [], []), loading))
    assert lines[0].split() == ["r", "iteration", "0", "of", "3"]
    assert lines[1].endswith("0/17 stages")
    assert lines[2].endswith("12 s so far")
    assert len(lines) == 3


def test_at_the_end():
    lines = screen(RunView(standing(evaluated=2, iterations=2), None))
    assert "iteration" not in lines[0]
    assert lines[1].split()[-2:] == ["12/12", "stages"]
