"""Charts that show the same number of several runs."""

from collections.abc import Callable, Iterator

from knowrl_core.report.chart import Chart, Line
from knowrl_core.report.charts import SHARE, filled, reward, truth_bounds
from knowrl_core.report.gather import Report, RunReport
from knowrl_core.report.scores import Curve, Values

Get = Callable[[RunReport], Curve]

_METRICS = (
    ("balance", "Called feasible, probe", "evaluate/probe/called_feasible", SHARE),
    ("entropy", "Verdict entropy, probe", "evaluate/probe/verdict_entropy", (0.0, 0.7)),
    ("kl", "KL to the reference, end of the update (k3)", "update/kl/end", None),
    ("pool", "Pool", "consensus/pool_size", None),
)


def comparison_charts(report: Report) -> list[Chart]:
    """One chart a number, one line a run; the same run has the same look in all of them."""
    charts = _truth(report)
    charts.insert(
        1,
        _chart(
            report, "reward", "Reward", "Mean over tasks without a verified label.", get=_plain(reward), bounds=SHARE
        ),
    )
    for name, title, metric, bounds in _METRICS:
        charts.append(_chart(report, name, title, "", get=_plain(_metric(metric)), bounds=bounds))
    return filled(*charts)


def _truth(report: Report) -> list[Chart]:
    found: list[Chart] = []
    for name in dict.fromkeys(item.name for run in report.runs for item in run.sets):
        about = "Balanced accuracy, or accuracy for a set with one label only. Bands are 95 % bootstrap intervals."
        chart = _chart(report, f"set-{name}", f"Truth: {name}", about, get=_head(name))
        bounds = truth_bounds(value for line in chart.lines for value in line.known)
        found.append(
            _chart(report, f"set-{name}", f"Truth: {name}", about, get=_head(name), bounds=bounds, large=not found)
        )
    return found


def _chart(
    report: Report,
    name: str,
    title: str,
    about: str,
    *,
    get: Get,
    bounds: tuple[float, float] | None = None,
    large: bool = False,
) -> Chart:
    iterations = sorted({at for run in report.runs for at in run.iterations})

    def spread(run: RunReport, values: Values) -> Values:
        place = {at: number for number, at in enumerate(run.iterations)}
        return [values[place[at]] if values and at in place else None for at in iterations]

    def lines() -> Iterator[Line]:
        for look, run in enumerate(report.runs):
            curve = get(run)
            banded = any(value is not None for value in curve.lower)
            lower, upper = (spread(run, curve.lower), spread(run, curve.upper)) if banded else ([], [])
            yield Line(run.name, spread(run, curve.values), lower, upper, look)

    return Chart(f"all-{name}", title, about, iterations, list(lines()), bounds=bounds, large=large)


def _head(name: str) -> Get:
    nothing = Curve([], [], [])
    return lambda run: next((item.head for item in run.sets if item.name == name), nothing)


def _plain(values: Callable[[RunReport], Values]) -> Get:
    return lambda run: Curve(values(run), [], [])


def _metric(name: str) -> Callable[[RunReport], Values]:
    return lambda run: run.metric(name)
