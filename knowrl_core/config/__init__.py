"""Config: pydantic sections, YAML profiles, overrides, and errors that say what is allowed."""

from knowrl_core.config.flat import flatten
from knowrl_core.config.guards import GuardsConfig
from knowrl_core.config.learning import (
    AnchorConfig,
    ConsensusConfig,
    EvaluationConfig,
    FilterConfig,
    IntrospectionConfig,
    RewardConfig,
    SamplingConfig,
    VerdictConfig,
)
from knowrl_core.config.load import DEFAULT_PROFILE, build_config, deep_merge, find_profile, load_config, profiles
from knowrl_core.config.model import Config
from knowrl_core.config.paths import anchored
from knowrl_core.config.problems import redacted, redacted_values
from knowrl_core.config.rl import DeepSpeedConfig, LoraConfig, RLConfig, WarmupConfig
from knowrl_core.config.system import (
    RUN_NAME,
    EngineConfig,
    FilesConfig,
    ModelConfig,
    OrchestrationConfig,
    PromptsConfig,
    RetentionConfig,
    RunConfig,
    TrackingConfig,
)

__all__ = [
    "DEFAULT_PROFILE",
    "RUN_NAME",
    "AnchorConfig",
    "Config",
    "ConsensusConfig",
    "DeepSpeedConfig",
    "EngineConfig",
    "EvaluationConfig",
    "FilesConfig",
    "FilterConfig",
    "GuardsConfig",
    "IntrospectionConfig",
    "LoraConfig",
    "ModelConfig",
    "OrchestrationConfig",
    "PromptsConfig",
    "RLConfig",
    "RetentionConfig",
    "RewardConfig",
    "RunConfig",
    "SamplingConfig",
    "TrackingConfig",
    "VerdictConfig",
    "WarmupConfig",
    "anchored",
    "build_config",
    "deep_merge",
    "find_profile",
    "flatten",
    "load_config",
    "profiles",
    "redacted",
    "redacted_values",
]
