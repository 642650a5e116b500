"""The parameters that tell runs and iterations apart in MLflow, out of about 140 fields of the config."""

import math
from collections.abc import Mapping
from typing import Any, Final

from mlflow import MlflowClient
from mlflow.entities import Param

from knowrl_core.config import Config, flatten
from knowrl_core.storage.layout import StageKey
from knowrl_core.storage.run_file import RunFile

ALWAYS: Final = (
    "model.path",
    "run.seed",
    "rl.algorithm",
    "rl.learning_rate",
    "rl.kl_coef",
    "rl.kl_estimator",
    "rl.kl_in",
    "rl.epochs",
    "rl.train_batch_size",
    "rl.lora.rank",
    "rl.trainer",
    "consensus.reward.votes",
    "consensus.reward.rule",
    "consensus.reward.evidence",
    "consensus.anchors.share",
    "consensus.train_min_share",
    "consensus.pool_min_share",
    "verdict.k",
    "verdict.mode",
    "introspection.calls_per_label",
    "introspection.max_candidates",
    "warmup.epochs",
    "engine.kind",
    "engine.dtype",
)
"""Logged whatever they are. Others are logged where they differ from their default, so nothing that was set is lost."""

_ELSEWHERE: Final = ("run.name", "run.root", "tracking.", "orchestration.", "retention.", "engine.vllm.")
"""What says where and how, and not what is learned."""

_VALUE_LIMIT: Final = 500


def log_params(client: MlflowClient, run_id: str, config: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Log what is telling in a config; repeating it changes nothing.

    Args:
        client: Connected to the store.
        run_id: The MLflow run.
        config: The config, by sections.
        first: Further parameters, which come first.
    """
    values = {**first, **telling(config)}
    params = [Param(name, str(value)[:_VALUE_LIMIT]) for name, value in values.items()]
    rate = math.log10(values["rl.learning_rate"])
    params.append(Param("rl.log10_learning_rate", f"{rate:.4f}"))  # the UI rounds 1e-6 to 0
    for start in range(0, len(params), 100):  # MLflow's limit for a batch
        client.log_batch(run_id, params=params[start : start + 100])


def telling(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are logged, by their dotted names."""
    given, default = dict(flatten(config)), dict(flatten(Config().model_dump(mode="json")))
    others = {
        name: value
        for name, value in given.items()
        if name not in ALWAYS and not name.startswith(_ELSEWHERE) and value != default.get(name)
    }
    return {**{name: given[name] for name in ALWAYS if name in given}, **others}


def config_of_iteration(run_file: RunFile, iteration: int) -> dict[str, Any]:
    """The config that an iteration ran with: later changes undone."""
    return run_file.config_at(StageKey(iteration, "evaluate"))
