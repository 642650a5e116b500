import pytest

from tests.unit.knowrl_core.report.made import MadeRun

SCRIPT = '<script>alert(1)</script> <img src=x onerror=alert(2)> "quoted" & {{ 7 * 7 }}'


@pytest.fixture
def made(tmp_path):
    """Makes runs in one root."""
    return lambda name="made", **options: MadeRun(tmp_path, name, **options)


@pytest.fixture(scope="session")
def collapsed(tmp_path_factory):
    """A run that learns, then collapses and is stopped; one task's text is a script. Not to be changed."""
    run = MadeRun(
        tmp_path_factory.mktemp("collapsed"),
        "collapsed",
        planned=8,
        sets={"probe": 40, "paired": 30},
        texts={30: SCRIPT, 27: "x" * 900},
        settings=["guards.label_balance.action=stop", "rl.kl_coef=0.01"],
    )
    truth = [(0.5, 0.5), (0.6, 0.7), (0.8, 0.9), (0.9, 0.5), (1.0, 0.0)]
    for number, right in enumerate(truth):
        run.iteration(number, right, reward=0.5 + 0.1 * number)
    run.end("stopped")
    return run
