"""A run on disk, made by hand: its numbers are what a test says, its files are written as the stages write theirs."""

from dataclasses import replace

from knowrl_core.config import build_config
from knowrl_core.evaluation.controls import control_records
from knowrl_core.evaluation.entropy import entropy_record
from knowrl_core.evaluation.metrics import metric_records
from knowrl_core.evaluation.outcomes import outcomes_of
from knowrl_core.guards import DECISION, GUARD_TABLE, judge_iteration
from knowrl_core.labels import FEASIBLE, INFEASIBLE, LABELS, UNPARSEABLE
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import (
    CLASSIFY,
    CONSENSUS,
    CONSENSUS_TABLE,
    EVALUATE,
    EXTRINSIC_TABLE,
    GENERATE,
    PREDICTIONS_TABLE,
    UPDATE,
    RunPaths,
    StageKey,
)
from knowrl_core.storage.run_file import RunFile, now
from knowrl_core.storage.schemas import ConsensusRecord, GuardRecord, MetricRecord, PredictionRecord

KINDS = ("no_memory", "external_system", "unknowable_future")


class NoWording:
    """The TF-IDF control left out."""

    def outcomes(self, *, seed):
        return None


class MadeRun:
    """Commits iterations. ``right`` is the share called right of both labels: (of feasible, of infeasible)."""

    def __init__(self, root, name="made", *, planned=3, sets=None, texts=None, settings=(), resamples=200):
        self.paths = RunPaths(root, name)
        self.paths.folder.mkdir(parents=True, exist_ok=True)
        fields = [
            f"run.name={name}",
            f"run.root={root}",
            f"run.iterations={planned}",
            f"evaluation.bootstrap={resamples}",
        ]
        self.config = build_config({}, [*fields, *settings])
        self.file = RunFile.create(self.config, {"model": "0" * 64})
        self.attempt = self.file.begin_attempt("000/generate", None)
        self.file.write(self.paths)
        self.sets = sets or {"probe": 40}
        self.texts = texts or {}
        self.resamples = resamples
        self.history = {}

    def end(self, outcome="completed"):
        """Note how its process ended."""
        self.attempt.ended, self.attempt.outcome = now(), outcome
        self.file.write(self.paths)
        return self.paths

    def iteration(self, number, right, *, reward=0.8, warmup=False, until=EVALUATE, skip=(), judged=12):
        """Commit an iteration, or its stages up to one of them."""
        stages = {GENERATE: self._generate, CLASSIFY: self._classify, CONSENSUS: self._consensus, UPDATE: self._update}
        stages[EVALUATE] = self._evaluate
        wanted = [GENERATE, EVALUATE] if number == 0 else [UPDATE, EVALUATE] if warmup else list(stages)
        for stage in wanted:
            key = StageKey(number, stage)
            writer = StageWriter(self.paths, key, seed=0, config={}, inputs=())
            stages[stage](number, writer, right=right, reward=reward, skip=skip, judged=judged)
            manifest = writer.commit()
            self.history[key] = manifest
            if stage == until:
                return self
        return self

    def _generate(self, number, writer, *, judged, **_):
        kept = judged
        writer.metrics |= {"calls": 8, "parsed": kept + 5 + number, "kept": kept, "tokens": 900.0 + 10 * number}
        writer.metrics |= {"dropped/too_short": 3, "dropped/near_duplicate": 2 + number}

    def _classify(self, number, writer, *, judged, **_):
        writer.metrics |= {"tasks": judged, "verdicts": judged * 8, "called_feasible": 0.5, "unparseable": 0.0}

    def _consensus(self, number, writer, *, judged, **_):
        reasons = [None, None, None, "tie", "class_balance"]
        rows = [
            ConsensusRecord(
                task_id=f"it{number:03d}/{place}", task=f"Do {place}", intended=LABELS[place % 2],
                label=LABELS[place % 2],
                share=0.9, evidence=0.9, teacher_feasible=None, teacher_infeasible=None, votes_feasible=4,
                votes_infeasible=4, votes_unparseable=0, p_infeasible=0.5, agrees=True, rewards=[1.0] * 8,
                trained=reasons[place % 5] is None, train_drop_reason=reasons[place % 5], pooled=False,
                pool_drop_reason="share_below_pool_min",
            )
            for place in range(judged)
        ]  # fmt: skip
        writer.write(CONSENSUS_TABLE, ConsensusRecord, rows)
        writer.metrics |= {"mean_share": 0.9, "pool_size": 6 * number, "pooled": 6, "trained": 7}

    def _update(self, number, writer, *, reward, **_):
        writer.metrics |= {"reward/mean": reward, "reward/candidates": reward, "kl/mean": 0.002 * number - 0.001}
        writer.metrics |= {"kl/mean_k3": 0.003 * number, "kl/end": 0.004 * number, "clip_fraction": 0.01 * number}
        writer.metrics |= {"grad_norm/mean": 1.5, "grad_norm/max": 3.0, "learning_rate": 1e-6, "tokens": 640.0}
        writer.path("checkpoint").mkdir()
        writer.path("checkpoint/model.safetensors").write_text(str(number))

    def _evaluate(self, number, writer, *, right, skip, **_):
        metrics, predictions = [], []
        for name, size in self.sets.items():
            if name in skip:
                continue
            rows = [self._prediction(name, place, size, right, number) for place in range(size)]
            outcomes = outcomes_of(rows)
            metrics += metric_records(name, outcomes, resamples=self.resamples, seed=0)
            metrics += control_records(name, outcomes, NoWording(), resamples=0, seed=0)
            if name == "probe":
                metrics += [MetricRecord(name, "balanced_accuracy", 0.7, size, "tfidf"), entropy_record(name, rows)]
            predictions += rows
        writer.write(EXTRINSIC_TABLE, MetricRecord, metrics)
        writer.write(PREDICTIONS_TABLE, PredictionRecord, predictions)
        values = {f"{r.dataset}/{r.metric}": r.value for r in metrics if r.predictor == "model" and r.value is not None}
        writer.metrics |= values | {"frozen/agreement": 0.6, "frozen/called_feasible": 0.5, "frozen/flip_order": 0.2}
        firings, decision = judge_iteration(self.config.guards, self.paths, self.history, number, writer.metrics)
        writer.metrics["guards/fired"] = len(firings)
        writer.write(GUARD_TABLE, GuardRecord, firings)
        writer.path(DECISION).write_text(decision.text())

    def _prediction(self, name, place, size, right, number):
        """Task ``place``: labels take turns; the first ones of a label are called right."""
        label = LABELS[place % 2]
        rank, share = (place // 2) / (size / 2), right[LABELS.index(label)]
        told = label if rank < share else INFEASIBLE if label == FEASIBLE else FEASIBLE
        score = 0.5 + (0.1 + 0.35 * ((place * 37) % 11) / 11) * (1 if told == INFEASIBLE else -1)
        row = PredictionRecord(
            dataset=name, task_id=f"{name}-{place:03d}", task=self.texts.get(place, f"Task {place} of {name}, please."),
            label=label, predicted=told, score=score, votes_feasible=4, votes_infeasible=4, votes_unparseable=0,
            prompt_sha256="h", policy=f"it{number:03d}", category=KINDS[place % 3],
        )  # fmt: skip
        return replace(row, predicted=UNPARSEABLE, score=None) if place in self.texts.get("unparseable", ()) else row
