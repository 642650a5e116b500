"""Evaluation: truth (extrinsic) beside agreement (intrinsic)."""

from knowrl_core.evaluation.intrinsic import consensus_metrics, intrinsic_metrics
from knowrl_core.evaluation.metrics import extrinsic_metrics
from knowrl_core.evaluation.predict import EvalTask, predict
from knowrl_core.evaluation.select import take_evenly

__all__ = ["EvalTask", "consensus_metrics", "extrinsic_metrics", "intrinsic_metrics", "predict", "take_evenly"]
