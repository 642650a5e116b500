"""Config of what is learned: introspection, self-assessment, consensus, evaluation (the update: ``rl.py``)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from knowrl_core.config.base import NonNegativeInt, PositiveInt, Section, Share


class SamplingConfig(Section):
    """How tokens are sampled."""

    temperature: Annotated[float, Field(gt=0.0, le=5.0)] = 1.0
    """Softmax temperature (no unit)."""

    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus: smallest set of tokens whose probability reaches this share; 1 keeps all."""

    max_new_tokens: Annotated[int, Field(ge=1, le=131_072)] = 64
    """Longest response, in tokens."""


class FilterConfig(Section):
    """Which candidates are dropped before they are judged; each drop keeps its reason."""

    min_words: PositiveInt = 3
    """Shortest task, in words."""

    max_words: Annotated[int, Field(ge=1, le=2_000)] = 120
    """Longest task, in words."""

    keywords: tuple[str, ...] = ()
    """Whole words or phrases (case ignored) that drop a task. Empty by default: words such as "image" or "graph" also
    mark natural infeasible tasks, which are wanted here."""

    max_similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """A candidate with ROUGE-L F1 at or above this to a seed, to a pool task or to an earlier candidate is dropped as
    a near-duplicate; 1 drops exact duplicates only."""

    max_repetition: Share = 0.5
    """A candidate in which more than this share of the word trigrams are repeats is dropped as degenerate."""


class IntrospectionConfig(Section):
    """Stage ``generate``: the model writes tasks that it believes feasible and infeasible."""

    calls_per_label: Annotated[int, Field(ge=1, le=100_000)] = 6
    """Generation calls for each of the two labels."""

    tasks_per_call: Annotated[int, Field(ge=1, le=100)] = 5
    """Numbered tasks asked for, and at most accepted, in one call."""

    shots: Annotated[int, Field(ge=1, le=64)] = 8
    """Few-shot examples in each prompt."""

    pool_shots: NonNegativeInt = 2
    """How many of the shots come from the pool, as soon as it has that many of the label; the rest are seeds."""

    sampling: SamplingConfig = SamplingConfig(temperature=0.9, top_p=0.95, max_new_tokens=160)
    """How introspection samples."""

    filters: FilterConfig = FilterConfig()
    """Which candidates are dropped."""

    max_candidates: Annotated[int, Field(ge=1, le=1_000_000)] = 60
    """Most candidates that go on to self-assessment, the same number a label as far as they reach; the others are
    dropped as ``surplus``."""

    @model_validator(mode="after")
    def _shots_agree(self) -> Self:
        if self.pool_shots >= self.shots:
            raise ValueError(
                f"pool_shots is {self.pool_shots}, expected less than shots ({self.shots}): at least one seed stays "
                "in every prompt, so that the pool cannot drift away from verified tasks"
            )
        return self


class VerdictConfig(Section):
    """Stage ``classify``: the model judges each candidate k times, blind to its intended label."""

    k: Annotated[int, Field(ge=1, le=1024)] = 8
    """Verdicts per task."""

    mode: Literal["constrained", "free"] = "constrained"
    """``constrained``: choose between the label strings by their renormalised probability. ``free``: short reasoning,
    then a verdict that is parsed strictly."""

    sampling: SamplingConfig = SamplingConfig(temperature=1.0, max_new_tokens=96)
    """How verdicts are sampled. In constrained mode only the temperature matters."""

    views: Annotated[tuple[str, ...], Field(min_length=1)] = ("feasible_first",)
    """Wordings and label orders in which a verdict is asked (see ``knowrl_core/prompts/views.py``). Verdict j of a
    task uses view j modulo their number, so votes are gathered over all of them."""


class RewardConfig(Section):
    """What a verdict is rewarded for: agreement with its task's label, which is found in these steps."""

    votes: Literal["policy", "initial", "average", "channel", "joint"] = "policy"
    """Whose verdicts give the label. ``policy``: the verdicts that are rewarded (KnowRL). ``initial``: those of the
    frozen initial model. ``average``: those of an exponential average of the policy's weights. These two are asked
    separately in stage ``classify``, in the same views. ``channel``: the frozen initial model judges by likelihood:
    under which of the two introspection prompts is the task likelier? Its threshold means nothing by itself: use
    ``evidence: probability`` with the rule ``rank`` or ``prior_corrected``. ``joint``: the policy's verdicts and the
    channel's together, as the mean of a task's two ranks in the batch. The two err on different tasks, so this ranks
    better than either."""

    channel_shots: Annotated[int, Field(ge=1, le=64)] = 16
    """Few-shot examples in the prompts of ``votes: channel`` and ``joint``."""

    channel_draws: Annotated[int, Field(ge=1, le=64)] = 8
    """Times that they are drawn anew, at most ``verdict.k``: verdict j of a task uses draw j modulo their number, as
    with views. Each draw costs a pass over the tasks a label; together they rank better than one."""

    average_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Share of the averaged weights that an iteration keeps (``votes: average`` only)."""

    evidence: Literal["votes", "probability"] = "votes"
    """What is compared: the share of the k verdicts, or the exact label probability, averaged over the views
    (constrained verdicts only). A model that always says the same has no votes left to compare, but still a ranking."""

    rule: Literal["majority", "prior_corrected", "rank"] = "majority"
    """``majority``: the label with more votes. ``prior_corrected``: infeasible where a task's share of infeasible is
    above the median over the batch, feasible where it is below, so that a general lean to one label earns nothing.
    ``rank``: the same labels, and a task's strength is its rank in the batch, so a gate at 0.75 takes the outer half
    whatever the scale of the evidence."""


class AnchorConfig(Section):
    """Anchors: verified seed tasks that are judged and trained on beside the candidates, rewarded by their label."""

    share: Share = 0.0
    """Share of anchors among the tasks of an iteration, both labels alike, drawn anew each iteration; at most all
    seeds. 1 trains on anchors alone, as many as there are candidates."""


class ConsensusConfig(Section):
    """Stage ``consensus``: rewards, which tasks are trained on, and which enter the pool."""

    reward: RewardConfig = RewardConfig()
    """Where a task's label comes from."""

    anchors: AnchorConfig = AnchorConfig()
    """Verified tasks in the batch."""

    train_min_share: Share = 0.5
    """Training gate: least share of the k verdicts that the majority holds. Ties never pass."""

    train_max_share: Share = 1.0
    """Training gate: largest share. Below 1 it leaves out tasks on which every verdict agrees (no signal in
    group-relative algorithms)."""

    train_requires_agreement: bool = False
    """Training gate: the consensus must equal the label that the task was generated under. The two come from different
    prompts, so where they agree the label is more often right than either alone."""

    balance_train: bool = False
    """Trim the larger consensus class so that both labels are trained on equally often."""

    pool_min_share: Share = 0.75
    """Pool gate: least share of the k verdicts that the majority holds."""

    pool_requires_agreement: bool = True
    """Pool gate: the consensus must equal the label that the task was generated under."""

    pool_max_size: NonNegativeInt = 1000
    """Most tasks in the pool, half of them a label; when it is full the oldest leave first. Seeds are not counted and
    never leave."""

    @model_validator(mode="after")
    def _gate_is_open(self) -> Self:
        if self.train_min_share > self.train_max_share:
            raise ValueError(
                f"train_min_share is {self.train_min_share}, expected at most train_max_share "
                f"({self.train_max_share}): no task could pass the training gate"
            )
        return self


BenchmarkName = Literal[
    "probe", "paired", "selfaware", "kuq", "falseqa", "nec", "refunq", "lineofduty", "lineofduty_agreed",
    "known_unknowns", "coconot",
]  # fmt: skip
"""Names of the labelled sets (see ``knowrl evaluate --list``)."""


class BenchmarkConfig(Section):
    """A labelled set that every iteration is measured on."""

    name: BenchmarkName
    """Which set."""

    path: str | None = None
    """Its file, or a folder with its files; null for a built-in set or to read it from the Hub."""

    limit: NonNegativeInt = 0
    """Tasks used, drawn by the run's seed in the set's own mix of labels; 0 means all."""


class EvaluationConfig(Section):
    """Stage ``evaluate``: truth beside agreement."""

    k: Annotated[int, Field(ge=1, le=1024)] = 8
    """Verdicts per evaluated task; in constrained mode the exact probability is used for label and score, and the votes
    are drawn from it."""

    probe_limit: NonNegativeInt = 0
    """Probe tasks used, taken evenly from both labels; 0 means all."""

    frozen_limit: NonNegativeInt = 0
    """Tasks used of the frozen set that the initial model wrote in iteration 0; 0 means all."""

    benchmarks: tuple[BenchmarkConfig, ...] = (BenchmarkConfig(name="paired", limit=60),)
    """Labelled sets measured beside the probe, which is always measured. Each task costs a prompt a view."""

    view_tasks: NonNegativeInt = 16
    """Frozen tasks that are asked in other label orders and wordings for the flip rates; 0 turns it off."""

    bootstrap: NonNegativeInt = 1000
    """Bootstrap resamples for confidence intervals; 0 turns them off."""

    @model_validator(mode="after")
    def _sets_differ(self) -> Self:
        names = [benchmark.name for benchmark in self.benchmarks]
        if "probe" in names:
            raise ValueError("benchmarks holds probe, which is always measured; probe_limit says how many tasks of it")
        if len(set(names)) < len(names):
            raise ValueError(f"benchmarks holds {sorted(names)}, expected each set once")
        return self
