"""Evaluation: truth (extrinsic) beside agreement (intrinsic)."""

from knowrl_core.evaluation.assess import Assessment, Judge, assess, controls_only
from knowrl_core.evaluation.benchmarks import (
    BENCHMARKS,
    Benchmark,
    BenchmarkTask,
    find_benchmark,
    find_files,
    from_seeds,
)
from knowrl_core.evaluation.compare import read_baseline
from knowrl_core.evaluation.intrinsic import consensus_metrics, intrinsic_metrics
from knowrl_core.evaluation.metrics import extrinsic_metrics
from knowrl_core.evaluation.open_set import OpenSet, open_set
from knowrl_core.evaluation.predict import EvalTask, predict
from knowrl_core.evaluation.select import take_evenly
from knowrl_core.evaluation.sink import PredictionSink
from knowrl_core.evaluation.views import flip_metrics, views_around

__all__ = [
    "BENCHMARKS",
    "Assessment",
    "Benchmark",
    "BenchmarkTask",
    "EvalTask",
    "Judge",
    "OpenSet",
    "PredictionSink",
    "assess",
    "consensus_metrics",
    "controls_only",
    "extrinsic_metrics",
    "find_benchmark",
    "find_files",
    "flip_metrics",
    "from_seeds",
    "intrinsic_metrics",
    "open_set",
    "predict",
    "read_baseline",
    "take_evenly",
    "views_around",
]
