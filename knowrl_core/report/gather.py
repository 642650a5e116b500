"""All that a report shows of a run, as plain data; ``knowrl report --json`` prints it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knowrl_core.config import redacted, redacted_values
from knowrl_core.report.events import Event, events
from knowrl_core.report.flips import SetFlips, set_flips
from knowrl_core.report.read import StoredRun
from knowrl_core.report.reproduce import Difference, command, config_differences
from knowrl_core.report.scores import PROBE, SetScores, Values, set_scores
from knowrl_core.report.table import best_iteration, iteration_rows, probe_scores
from knowrl_core.report.verdict import Facts, Verdict, judge
from knowrl_core.storage.layout import CONSENSUS, CONSENSUS_TABLE, GENERATE, STAGES, StageKey
from knowrl_core.storage.run_file import now
from knowrl_core.storage.schemas import ConsensusRecord
from knowrl_core.version import code_version

Counts = dict[str, list[int]]
"""Tasks by what became of them, one number an iteration."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """One run.

    Attributes:
        name: Its name.
        place: Its folder or address.
        run_id: Tells runs of the same name apart.
        state: running, completed, stopped (by a guard), failed, interrupted, killed or not started.
        stopped: Why a guard ended it.
        error: What its last attempt failed with.
        created: When it began.
        finished: When its last committed stage was finished; None before the first.
        planned: Iterations that it is to have.
        iterations: Iterations with a committed stage; all lists below have one value for each.
        warmup: Iteration 1 is the warm-up.
        best: Iteration with the best balanced accuracy on the probe.
        last: Last iteration that was measured on the probe.
        compared: Iteration that is compared with iteration 0 task by task: the best, or the last where iteration 0 is.
        verdict: What it came to, in words.
        sets: Labelled sets, the probe first.
        metrics: Every metric of every stage, as ``stage/metric``; with ``stage/seconds``.
        filtered: Parsed tasks by what the filters of stage generate made of them.
        gated: Judged tasks by what the training gate of stage consensus made of them.
        events: Guards, rollbacks, config changes.
        flips: Iteration ``compared`` against iteration 0.
        seed: Its seed.
        model: Its initial model.
        pins: sha256 of what all history depends on.
        versions: Of Python and libraries, as of its creation.
        code: Versions of KnowRL that its stages were done with.
        forked_from: Run and point that it was forked from.
        attempts: Processes that worked on it.
        config: Its config as of the last attempt, without passwords.
        command: Does it again; a password has to be put in its place.
    """

    name: str
    place: str
    run_id: str
    state: str
    stopped: str | None
    error: str | None
    created: str
    finished: str | None
    planned: int
    iterations: list[int]
    warmup: bool
    best: int | None
    last: int | None
    compared: int | None
    verdict: Verdict
    sets: list[SetScores]
    metrics: dict[str, Values]
    filtered: Counts
    gated: Counts
    events: list[Event]
    flips: list[SetFlips]
    seed: int
    model: str
    pins: dict[str, str]
    versions: dict[str, str]
    code: list[str]
    forked_from: str | None
    attempts: int
    config: dict[str, Any]
    command: str

    def at(self, values: Values, iteration: int | None) -> float | None:
        """The value of an iteration."""
        return values[self.iterations.index(iteration)] if iteration in self.iterations else None

    def metric(self, name: str) -> Values:
        """A metric by iteration; all None where no stage has it."""
        return self.metrics.get(name, [None] * len(self.iterations))

    @property
    def probe(self) -> SetScores | None:
        """The probe's scores, once measured."""
        return next((item for item in self.sets if item.name == PROBE), None)

    @property
    def seconds(self) -> float:
        """Time of all committed stages."""
        return sum(value or 0.0 for stage in STAGES for value in self.metric(f"{stage}/seconds"))


@dataclass(frozen=True, slots=True)
class Report:
    """One or more runs.

    Attributes:
        made: When it was made.
        code: Version of KnowRL that made it.
        runs: The runs, in the order asked for.
        differences: Config fields in which they differ.
    """

    made: str
    code: str
    runs: list[RunReport]
    differences: list[Difference]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)


def gather(runs: Sequence[StoredRun]) -> Report:
    """Read all that a report shows.

    Raises:
        ArtifactError: A table is missing, altered, or of another version.
    """
    return Report(
        made=now(),
        code=code_version(),
        runs=[_run(run) for run in runs],
        differences=config_differences([redacted_values(run.file.config) for run in runs]) if len(runs) > 1 else [],
    )


def _run(run: StoredRun) -> RunReport:
    rows = iteration_rows(run.history)
    iterations = [row.iteration for row in rows]
    sets = set_scores(run, iterations)
    metrics = _metrics(run, iterations)
    best, measured = best_iteration(run.history), sorted(probe_scores(run.history))
    compared = (best or measured[-1]) if measured and measured[-1] else None
    flips = set_flips(run, sets, compared) if compared else []
    warmup = any(row.warmup for row in rows)
    attempt = run.file.attempts[-1] if run.file.attempts else None
    facts = Facts(
        state=run.state,
        stop=run.stop,
        planned=int(run.file.config["run"]["iterations"]),
        iterations=iterations,
        warmup=warmup,
        best=best,
        compared=compared,
        sets=sets,
        flips=flips,
        reward=metrics.get("update/reward/candidates", metrics.get("update/reward/mean", [])),
        bounds=_bounds(run),
    )
    return RunReport(
        name=run.paths.name,
        place=redacted(run.paths.shown),
        run_id=run.file.run_id,
        state=run.state,
        stopped=run.stop.reason if run.stop else None,
        error=redacted(attempt.error) if attempt and attempt.error and run.state == "failed" else None,
        created=run.file.created,
        finished=max((manifest.finished for manifest in run.history.values()), default=None),
        planned=facts.planned,
        iterations=iterations,
        warmup=warmup,
        best=best,
        last=measured[-1] if measured else None,
        compared=compared,
        verdict=judge(facts),
        sets=sets,
        metrics=metrics,
        filtered=_filtered(metrics, iterations),
        gated=_gated(run, iterations),
        events=events(run, warmup=warmup),
        flips=flips,
        seed=run.file.seed,
        model=redacted(str(run.file.config["model"]["path"])),
        pins=run.file.pins,
        versions=run.file.versions,
        code=sorted({manifest.code_version for manifest in run.history.values()}),
        forked_from=f"{run.file.forked_from.run} at {run.file.forked_from.at}" if run.file.forked_from else None,
        attempts=len(run.file.attempts),
        config=redacted_values(run.file.config),
        command=command(run),
    )


def _metrics(run: StoredRun, iterations: Sequence[int]) -> dict[str, Values]:
    place = {iteration: number for number, iteration in enumerate(iterations)}
    found: dict[str, Values] = {}
    for key, manifest in run.history.items():
        for name, value in {**manifest.metrics, "seconds": manifest.seconds}.items():
            found.setdefault(f"{key.stage}/{name}", [None] * len(iterations))[place[key.iteration]] = value
    return found


def _bounds(run: StoredRun) -> tuple[float, float]:
    """Shares called feasible below and above which the model says one thing nearly always."""
    guard = run.file.config.get("guards", {}).get("label_balance", {})
    return float(guard.get("lowest", 0.05)), float(guard.get("highest", 0.95))


def _filtered(metrics: dict[str, Values], iterations: Sequence[int]) -> Counts:
    wanted = {f"{GENERATE}/kept": "kept"}
    wanted |= {name: name.removeprefix(f"{GENERATE}/dropped/") for name in metrics if "/dropped/" in name}
    empty: Values = [None] * len(iterations)
    return {title: [int(value or 0) for value in metrics.get(name, empty)] for name, title in wanted.items()}


def _gated(run: StoredRun, iterations: Sequence[int]) -> Counts:
    counts: list[Counter[str]] = []
    for iteration in iterations:
        key = StageKey(iteration, CONSENSUS)
        columns = ("train_drop_reason",)
        reasons = run.columns(key, CONSENSUS_TABLE, ConsensusRecord, columns)[columns[0]] if key in run.history else []
        counts.append(Counter(reason or "trained" for reason in reasons))
    names = sorted({name for own in counts for name in own} - {"trained"})
    return {name: [own[name] for own in counts] for name in ("trained", *names)}
