"""Collapse, shown and prevented: the loop's own parts on a small model that learns a rule from words.

Tasks are four words, one of which decides the label. Three policies know the rule and lean to one label all the same:
the ranking of tasks is right, the threshold is not. From there the loop runs on unlabelled tasks at a high learning
rate. What comes of it is measured on a probe that it never sees.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, LlamaForCausalLM

from knowrl_core.config import Config, GuardsConfig, build_config
from knowrl_core.config.rl import RLConfig
from knowrl_core.consensus import build_consensus
from knowrl_core.consensus.anchors import anchor_tasks, build_anchors, draw_anchors
from knowrl_core.engines import ChooseRequest, build_engine
from knowrl_core.guards import Decision, ask, decide, point_of
from knowrl_core.models.load import setup_torch
from knowrl_core.models.tiny import tiny_folder
from knowrl_core.models.words import WORDS
from knowrl_core.prompts import load_prompts
from knowrl_core.rl import FlatVerdict, Rollout, UpdateJob, Verdict
from knowrl_core.rl.update import run_update
from knowrl_core.seeds import SeedTask
from knowrl_core.storage.schemas import Candidate
from knowrl_core.verdicts import judge_tasks
from tasks.update import rollouts

pytestmark = pytest.mark.slow

DECIDING = {"feasible": WORDS[:4], "infeasible": WORDS[12:16]}
OTHERS = WORDS[24:80]
STARTS = (1, 2, 3)
"""Seeds of the random weights."""
ITERATIONS = 6


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The same figures on every machine, as far as its arithmetic is the same."""
    before = torch.get_num_threads()
    setup_torch(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    template = tmp_path_factory.mktemp("prompts") / "verdict.jinja"
    template.write_text("[[user]]\n{{ task }}\n[[assistant]]\nAnswer:\n", encoding="utf-8")
    data = {
        "prompts": {"verdict_constrained": str(template)},
        "rl": {"learning_rate": 1e-3, "kl_coef": 0.0, "train_batch_size": 64},
        "engine": {"dtype": "fp32"},
    }
    return build_config(data, source="test")


def labelled(n: int, seed: int) -> list[SeedTask]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        label = ("feasible", "infeasible")[i % 2]
        words = [str(word) for word in rng.choice(OTHERS, 3)]
        words.insert(int(rng.integers(0, 4)), str(rng.choice(DECIDING[label])))
        made.append(SeedTask(id=f"s{seed}-{i}", task=" ".join(words), label=label))
    return made


SEEDS, PROBE = labelled(120, 1), labelled(80, 2)


@dataclass(frozen=True)
class Truth:
    """What a policy says of the probe."""

    balanced_accuracy: float
    called_feasible: float
    entropy: float

    def metrics(self, reward: float) -> dict[str, float]:
        return {
            "reward/candidates": reward,
            "probe/balanced_accuracy": self.balanced_accuracy,
            "probe/called_feasible": self.called_feasible,
            "probe/verdict_entropy": self.entropy,
        }


class Lab:
    """Judges tasks and trains, with the parts that the pipeline uses."""

    def __init__(self, config: Config, root: Path) -> None:
        self.config, self.root = config, root
        self.prompts = load_prompts(config.prompts)
        self.lessons = 0

    def judge(self, folder: Path, tasks, iteration: int = 0):
        return judge_tasks(
            build_engine(self.config.engine, folder, device="cpu"),
            tasks,
            config=self.config.verdict,
            prompts=self.prompts,
            run_seed=0,
            iteration=iteration,
            stage="classify",
            engine_name="test",
            policy="test",
        )

    def truth(self, folder: Path) -> Truth:
        rows = self.judge(folder, [(task.id, task.task) for task in PROBE])
        p = {row.task_id: row.p_infeasible for row in rows}
        right = {
            label: [(p[t.id] > 0.5) == (label == "infeasible") for t in PROBE if t.label == label] for label in DECIDING
        }
        values = np.clip(np.array(list(p.values())), 1e-12, 1 - 1e-12)
        entropy = -(values * np.log(values) + (1 - values) * np.log(1 - values))
        return Truth(
            float(np.mean([np.mean(right[label]) for label in DECIDING])),
            float((values < 0.5).mean()),
            float(entropy.mean()),
        )

    def start(self, seed: int) -> Path:
        """A model of usual random weights that knows the rule, and leans to one label all the same.

        Supervised passes over the seeds until it is right on most of the probe; then passes over tasks that are all
        called feasible, until it calls nearly all of the probe so. That moves the threshold more than the ranking. How
        many passes it takes depends on the arithmetic, but not what comes out.
        """
        folder = self.root / f"random-{seed}"
        shutil.copytree(tiny_folder()[0], folder)
        shape = AutoConfig.from_pretrained(folder)
        shape.initializer_range = 0.05
        torch.manual_seed(seed)
        LlamaForCausalLM(shape).save_pretrained(folder)
        while self.truth(folder).balanced_accuracy < 0.9:
            folder = self.taught(folder, SEEDS, 3e-3)
        leaning = [task.model_copy(update={"label": "feasible"}) for task in labelled(32, 3)]
        while self.truth(folder).called_feasible < 0.9:
            folder = self.taught(folder, leaning, 2e-4)
        return folder

    def taught(self, folder: Path, tasks: list[SeedTask], rate: float) -> Path:
        """One supervised pass."""
        labels = ("feasible", "infeasible")
        blank = {"question": "", "first": "", "second": "", "first_meaning": "", "second_meaning": ""}
        requests = [
            ChooseRequest(
                turns=self.prompts.verdict_constrained.render(task=task.task, **blank),
                choices=(" feasible", " infeasible"),
            )
            for task in tasks
        ]
        warm = []
        answers = build_engine(self.config.engine, folder, device="cpu").choose(requests)
        for task, answer in zip(tasks, answers, strict=True):
            right = labels.index(task.label)
            verdict = Verdict(
                sample=0,
                response_token_ids=answer.token_ids[right],
                engine_logprobs=answer.token_logprobs[right],
                reward=1.0,
            )
            flat = [FlatVerdict(answer.prompt_token_ids, verdict)]
            warm.append(Rollout.from_verdicts(task.id, flat, label=task.label))
        rl = RLConfig(learning_rate=rate, train_batch_size=16, kl_coef=0.0)
        self.lessons += 1
        assert self.lessons < 100, "the warm-up does not come to an end"
        name = f"lesson-{self.lessons}"
        return self.train(folder, None, warm, rl, name=name, seed=self.lessons, objective="supervised")[0]

    def train(self, policy: Path, state: Path | None, tasks, rl: RLConfig, *, name: str, seed: int, **options):
        job = UpdateJob(
            policy_dir=policy,
            reference_dir=None,
            optimizer_dir=state,
            output_dir=self.root / name,
            rollouts=tuple(tasks),
            rl=rl,
            device="cpu",
            shuffle_seed=seed,
            **options,
        )
        return job.output_dir, run_update(job).metrics

    def loop(self, start: Path, name: str, *, anchors: float = 0.0, **reward: str) -> list[tuple[float, Truth]]:
        """Iterations of classify, consensus and update; the mean reward and the truth after each."""
        consensus = self.config.consensus.model_copy(
            update={"reward": self.config.consensus.reward.model_copy(update=reward)}
        )
        policy, state, seen = start, None, []
        for iteration in range(1, ITERATIONS + 1):
            fresh = [candidate(task, iteration) for task in labelled(40, 100 + iteration)]
            verdicts = self.judge(policy, [(c.id, c.task) for c in fresh], iteration)
            rows, _ = build_consensus(fresh, verdicts, [], consensus, iteration=iteration, k=self.config.verdict.k)
            batch = rollouts(rows, verdicts)
            if anchors:
                drawn = draw_anchors(SEEDS, share=anchors, candidates=len(fresh), run_seed=0, iteration=iteration)
                said = self.judge(policy, anchor_tasks(drawn), iteration)
                batch += rollouts(build_anchors(said, drawn, k=self.config.verdict.k), said, anchor=True)
            policy, metrics = self.train(
                policy, state, batch, self.config.rl, name=f"{name}-{iteration}", seed=iteration
            )
            state = policy
            seen.append((metrics["reward/mean"], self.truth(policy)))
        return seen


def candidate(task: SeedTask, iteration: int) -> Candidate:
    return Candidate(
        id=task.id,
        task=task.task,
        intended=task.label,
        iteration=iteration,
        call=0,
        item=0,
        kept=True,
        drop_reason=None,
        similar_to=None,
        similarity=None,
        few_shot_ids=[],
        prompt_sha256="",
        engine="test",
        policy="test",
        seed=0,
        finish_reason="stop",
    )


VARIANTS = {
    "plain": {},
    "anchors": {"anchors": 0.5},
    "prior_corrected": {"rule": "prior_corrected"},
    "both": {"anchors": 0.4, "rule": "prior_corrected"},
}


@pytest.fixture(scope="module")
def results(config: Config, tmp_path_factory: pytest.TempPathFactory):
    """Truth at the start, and the course of each variant, for each start."""
    lab = Lab(config, tmp_path_factory.mktemp("collapse"))
    found = []
    for seed in STARTS:
        start = lab.start(seed)
        courses = {name: lab.loop(start, f"{seed}-{name}", **options) for name, options in VARIANTS.items()}
        found.append((lab.truth(start), courses))
    return found


def test_plain_consensus_collapses(results):
    for _, courses in results:
        rewards = [reward for reward, _ in courses["plain"]]
        reward, truth = courses["plain"][-1]
        assert reward > 0.95
        assert reward > rewards[0]  # the model agrees with itself ever more,
        assert truth.balanced_accuracy < 0.6  # knows nothing,
        assert truth.called_feasible > 0.9  # and says one thing


@pytest.mark.parametrize("variant", ["anchors", "prior_corrected", "both"])
def test_anchors_and_prior_correction_prevent_it(results, variant):
    ends = [courses[variant][-1][1] for _, courses in results]
    assert min(truth.balanced_accuracy for truth in ends) > 0.65
    assert np.mean([truth.balanced_accuracy for truth in ends]) > 0.75
    assert all(truth.called_feasible < 0.9 for truth in ends)


def watched(guards: GuardsConfig, start: Truth, course: list[tuple[float, Truth]]) -> Decision:
    """What the guards decide of a course, which ends where they stop it or roll back."""
    decision = decide(guards, None, point_of(0, start.metrics(0.0), warmup=True), [], available={0})
    for iteration, (reward, truth) in enumerate(course, start=1):
        metrics = truth.metrics(reward)
        firings = ask(guards, iteration, metrics, decision.lineage)
        point = point_of(iteration, metrics, warmup=False)
        decision = decide(guards, decision, point, firings, available=set(range(iteration + 1)))
        if decision.stop or decision.rollbacks:
            break
    return decision


def test_a_guard_stops_it(results):
    """The label-balance guard ends every plain run, and no other, at the latest in its last iteration."""
    off = {"action": "off"}
    section = {"label_balance": {"action": "stop"}, "reward_against_truth": off, "probe": off, "verdict_entropy": off}
    guards = build_config({"guards": section}, source="test").guards
    for start, courses in results:
        decision = watched(guards, start, courses["plain"])
        assert decision.stop
        assert "label_balance" in decision.reason
        # its first iteration or two may still lean: the start did
        assert not watched(guards, start, courses["both"][1:]).stop


def test_a_guard_rolls_it_back(results):
    """Where there was truth to lose, rising reward beside falling truth leads back to where there was most of it."""
    section = {"reward_against_truth": {"action": "rollback"}, "probe": {"action": "off"}}
    guards = build_config({"guards": section}, source="test").guards
    seen = 0
    for start, courses in results:
        if start.balanced_accuracy < 0.55:
            continue
        seen += 1
        decision = watched(guards, start, courses["plain"])
        assert decision.rollbacks == 1
        assert decision.learning_rate_factor == 0.5
        best = max(point.balanced_accuracy for point in decision.lineage)
        assert decision.lineage[-1].balanced_accuracy == best >= start.balanced_accuracy
    assert seen
