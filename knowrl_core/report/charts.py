"""Which charts a report has of a run."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from knowrl_core.evaluation.controls import TFIDF
from knowrl_core.report import events
from knowrl_core.report.chart import Chart, Line, Mark, Rule
from knowrl_core.report.gather import RunReport
from knowrl_core.report.scores import SetScores, Values
from knowrl_core.storage.layout import STAGES

SHARE: Final = (0.0, 1.0)
LETTERS: Final = {
    events.GUARD: "G",
    events.ROLLBACK: "R",
    events.STOP: "S",
    events.CONFIG: "C",
    events.WARMUP: "W",
    events.FORK: "F",
    events.REDONE: "D",
}
"""What stands for an event in a chart."""
MARKED: Final = (events.GUARD, events.ROLLBACK, events.STOP)
"""Events that all charts show; the first shows every one."""


def reward_and_truth(run: RunReport) -> Chart:
    """The chart that everything is about: what the model is paid for, beside whether it is right."""
    lines = [Line("Reward (agreement with the consensus)", reward(run), look=1)]
    rules: list[Rule] = []
    if run.probe is not None:
        head = run.probe.head
        name = f"{titled(run.probe.headline)} on the probe (truth)"
        lines.insert(0, Line(name, head.values, head.lower, head.upper, look=0))
        rules = rules_of(run, run.probe)
    if any(value is not None for value in run.metric("update/reward/anchors")):
        lines.append(Line("Reward on anchors (verified seeds)", run.metric("update/reward/anchors"), look=2))
    best = [Mark(run.best, "best", "best")] if run.best else []
    return Chart(
        name="reward-truth",
        title="Reward and truth",
        about="Reward that rises while truth falls is the collapse that this method is prone to. The band is the 95 % "
        "bootstrap interval. The reward of an iteration was earned by the policy that it began with.",
        iterations=run.iterations,
        lines=lines,
        rules=rules,
        marks=[*best, *marks(run, LETTERS)],
        bounds=truth_bounds([*(value for line in lines for value in line.known), *(rule.value for rule in rules)]),
        large=True,
    )


def set_charts(run: RunReport) -> list[Chart]:
    """One chart for each labelled set."""
    found = []
    for item in run.sets:
        head = item.head
        lines = [Line(titled(item.headline), head.values, head.lower, head.upper, look=0)]
        accuracy = item.metrics.get("accuracy")
        if accuracy is not None and not _same(accuracy.values, head.values):
            lines.append(Line("Accuracy", accuracy.values, look=3))
        if "auroc" in item.metrics:
            lines.append(Line("AUROC (ranking alone)", item.metrics["auroc"].values, look=4))
        if "pair_accuracy" in item.metrics:
            lines.append(Line("Both twins of a pair right", item.metrics["pair_accuracy"].values, look=5))
        about = f"{item.tasks:,} tasks. AUROC does not depend on the threshold: it often outlives the accuracy."
        rules = rules_of(run, item)
        bounds = truth_bounds([*(value for line in lines for value in line.known), *(rule.value for rule in rules)])
        found.append(_chart(run, f"set-{item.name}", item.name, about, lines, bounds=bounds, rules=rules))
    return found


def behaviour_charts(run: RunReport) -> list[Chart]:
    """How the model behaves, whether right or not."""
    guard = run.config.get("guards", {})
    balance, entropy = guard.get("label_balance", {}), guard.get("verdict_entropy", {})
    bounds = [Rule(f"Guard: {end}", float(balance[end]), "bound") for end in ("lowest", "highest") if end in balance]
    floor = [Rule("Guard: lowest", float(entropy["lowest"]), "bound")] if "lowest" in entropy else []
    one = run.metric
    return filled(
        _chart(
            run,
            "label-balance",
            "Label balance",
            "Share called feasible. A model that gives one answer to everything agrees with itself perfectly.",
            [
                Line("Probe", one("evaluate/probe/called_feasible"), look=0),
                Line("Frozen set", one("evaluate/frozen/called_feasible"), look=1),
                Line("Fresh tasks", one("evaluate/fresh/called_feasible"), look=2),
            ],
            bounds=SHARE,
            rules=bounds,
        ),
        _chart(
            run,
            "entropy",
            "Verdict entropy",
            "Mean entropy of a verdict on the probe, in nats: 0 never changes its mind, 0.693 tosses a coin.",
            [Line("Probe", one("evaluate/probe/verdict_entropy"), look=0)],
            bounds=(0.0, 0.7),
            rules=floor,
        ),
        _chart(
            run,
            "agreement",
            "Agreement with itself",
            "Intrinsic: says nothing about truth. The frozen set was written "
            "by the initial model, fresh tasks by each iteration's.",
            [
                Line("Frozen set, as intended", one("evaluate/frozen/agreement"), look=0),
                Line("Fresh tasks, as intended", one("evaluate/fresh/agreement"), look=1),
                Line("Consensus share", one("consensus/mean_share"), look=2),
            ],
            bounds=SHARE,
        ),
        _chart(
            run,
            "question-form",
            "Answers that change with the question's form",
            "Share of the frozen set answered otherwise when the labels' order or the wording changes; 0 is best.",
            [
                Line("Labels in the other order", one("evaluate/frozen/flip_order"), look=0),
                Line("Another wording", one("evaluate/frozen/flip_wording"), look=1),
            ],
            bounds=SHARE,
        ),
    )


def update_charts(run: RunReport) -> list[Chart]:
    """How far the policy moves."""
    one = run.metric
    return filled(
        _chart(
            run,
            "kl",
            "KL to the reference",
            "In nats a token. k1 may be negative, k3 never is.",
            [
                Line("k1, mean of the update", one("update/kl/mean"), look=0),
                Line("k3, mean of the update", one("update/kl/mean_k3"), look=1),
                Line("k3, at its end", one("update/kl/end"), look=2),
            ],
        ),
        _chart(
            run,
            "clip",
            "Clip fraction",
            "Share of tokens whose probability ratio was clipped.",
            [Line("Clipped tokens", one("update/clip_fraction"), look=0)],
        ),
        _chart(
            run,
            "gradient",
            "Gradient norm",
            "Before scaling.",
            [
                Line("Mean of the steps", one("update/grad_norm/mean"), look=0),
                Line("Largest", one("update/grad_norm/max"), look=1),
            ],
        ),
        _chart(
            run,
            "rate",
            "Learning rate",
            "At the last step of the update; rollbacks lower it.",
            [Line("Learning rate", one("update/learning_rate"), look=0)],
        ),
    )


def data_charts(run: RunReport) -> list[Chart]:
    """What the run feeds on."""
    one = run.metric
    return filled(
        _stack(
            run,
            "filtered",
            "Parsed tasks and the filters",
            "What the filters of stage generate kept, and why they dropped the rest.",
            run.filtered,
        ),
        _stack(
            run,
            "gated",
            "Judged tasks and the training gate",
            "What was trained on, and why the rest was not.",
            run.gated,
        ),
        _chart(
            run,
            "pool",
            "Pool",
            "Tasks kept for later few-shot prompts.",
            [
                Line("In the pool", one("consensus/pool_size"), look=0),
                Line("Entered in this iteration", one("consensus/pooled"), look=1),
            ],
        ),
        _chart(
            run,
            "unparseable",
            "Verdicts that cannot be parsed",
            "Share of the verdicts; never a vote, reward 0.",
            [
                Line("Fresh tasks", one("classify/unparseable"), look=0),
                Line("Probe", one("evaluate/probe/unparseable"), look=1),
            ],
            bounds=SHARE,
        ),
    )


def cost_charts(run: RunReport) -> list[Chart]:
    """Where the time goes."""
    seconds = [Line(stage, run.metric(f"{stage}/seconds"), look=look) for look, stage in enumerate(STAGES)]
    return filled(
        Chart(
            "seconds",
            "Seconds by stage",
            "Time from a stage's start to its commit.",
            run.iterations,
            seconds,
            stacked=True,
        ),
        _chart(
            run,
            "tokens",
            "Tokens a second",
            "Written by stage generate; trained on by stage update.",
            [
                Line("generate", _rate(run, "generate", "tokens"), look=0),
                Line("update", _rate(run, "update", "tokens"), look=3),
            ],
        ),
        _chart(
            run,
            "verdicts",
            "Verdicts a second",
            "Of stage classify, anchors and teacher left out of the count.",
            [Line("classify", _rate(run, "classify", "verdicts"), look=1)],
        ),
    )


def reward(run: RunReport) -> Values:
    """Mean reward of the tasks without a verified label; of all, where they are not apart."""
    own = run.metric("update/reward/candidates")
    return own if any(value is not None for value in own) else run.metric("update/reward/mean")


def rules_of(run: RunReport, item: SetScores) -> list[Rule]:
    """The controls of a set, and what the untouched model scored."""
    base = run.at(item.head.values, 0)
    found = [Rule("Base model (iteration 0)", base, "base")] if base is not None else []
    if item.best_constant is not None:
        found.append(Rule("Best constant answer", item.best_constant, "constant"))
    if TFIDF in item.controls:
        found.append(Rule("TF-IDF on wording, fitted on the set", item.controls[TFIDF], "tfidf"))
    return found


def marks(run: RunReport, kinds: Collection[str] = MARKED) -> list[Mark]:
    """Events as charts mark them: a guard's firings after its first are only hinted at."""
    seen: set[tuple[str, str]] = set()
    found = []
    for item in run.events:
        if item.kind in kinds:
            again = item.kind == events.GUARD and (item.kind, item.subject) in seen
            seen.add((item.kind, item.subject))
            found.append(Mark(item.iteration, "" if again else LETTERS[item.kind], item.kind))
    return found


def truth_bounds(values: Iterable[float | None]) -> tuple[float, float]:
    """Ends of an axis for scores: up to 1, and down as far as they reach."""
    low = min((value for value in values if value is not None), default=0.0)
    return (next(end for end in (0.4, 0.25, 0.0) if low >= end), 1.0) if low >= 0 else (-1.0, 1.0)


def titled(metric: str) -> str:
    """A metric's name for people."""
    return metric.replace("_", " ").capitalize()


def _chart(
    run: RunReport,
    name: str,
    title: str,
    about: str,
    lines: Sequence[Line],
    *,
    rules: Sequence[Rule] = (),
    bounds: tuple[float, float] | None = None,
) -> Chart:
    shown = [line for line in lines if line.known]
    return Chart(name, title, about, run.iterations, shown, rules, marks(run), bounds)


def _stack(run: RunReport, name: str, title: str, about: str, counts: dict[str, list[int]]) -> Chart:
    """Columns: what is kept, then the reasons, the most frequent first; rare ones together where there are many."""
    kept, *reasons = counts
    reasons.sort(key=lambda reason: -sum(counts[reason]))
    rare = reasons[6:] if len(reasons) > 7 else []
    parts = {name: counts[name] for name in (kept, *reasons) if name not in rare}
    if rare:
        parts[f"{len(rare)} rarer reasons"] = [
            sum(column) for column in zip(*(counts[name] for name in rare), strict=True)
        ]
    lines = [Line(name.replace("_", " "), list(values), look=look) for look, (name, values) in enumerate(parts.items())]
    return Chart(name, title, about, run.iterations, lines, stacked=True)


def _rate(run: RunReport, stage: str, what: str) -> Values:
    pairs = zip(run.metric(f"{stage}/{what}"), run.metric(f"{stage}/seconds"), strict=True)
    return [count / seconds if count is not None and seconds else None for count, seconds in pairs]


def filled(*charts: Chart) -> list[Chart]:
    """Those that have something to draw."""
    return [chart for chart in charts if not chart.empty]


def _same(one: Values, other: Values) -> bool:
    return all(
        a is b or (a is not None and b is not None and abs(a - b) < 1e-9) for a, b in zip(one, other, strict=True)
    )
