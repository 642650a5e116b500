"""The whole config of a run."""

from typing import Self

from pydantic import model_validator

from knowrl_core.config.base import Section
from knowrl_core.config.guards import GuardsConfig
from knowrl_core.config.learning import (
    ConsensusConfig,
    EvaluationConfig,
    IntrospectionConfig,
    VerdictConfig,
)
from knowrl_core.config.rl import RLConfig, WarmupConfig
from knowrl_core.config.system import (
    EngineConfig,
    FilesConfig,
    ModelConfig,
    OrchestrationConfig,
    PromptsConfig,
    RetentionConfig,
    RunConfig,
    TrackingConfig,
)


class Config(Section):
    """All that a run is told. Every field has a default; profiles in ``configs/`` set what differs."""

    run: RunConfig = RunConfig()
    """Name, place, length and seed of the run."""

    model: ModelConfig = ModelConfig()
    """The policy's starting point."""

    files: FilesConfig = FilesConfig()
    """Seed and probe files."""

    prompts: PromptsConfig = PromptsConfig()
    """Prompt templates."""

    introspection: IntrospectionConfig = IntrospectionConfig()
    """Stage ``generate``."""

    verdict: VerdictConfig = VerdictConfig()
    """Stage ``classify``."""

    consensus: ConsensusConfig = ConsensusConfig()
    """Stage ``consensus``."""

    warmup: WarmupConfig = WarmupConfig()
    """Supervised warm-up as iteration 1."""

    rl: RLConfig = RLConfig()
    """Stage ``update``."""

    guards: GuardsConfig = GuardsConfig()
    """What counts as collapse, and what happens then."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """Stage ``evaluate``."""

    engine: EngineConfig = EngineConfig()
    """Generation engine."""

    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""

    orchestration: OrchestrationConfig = OrchestrationConfig()
    """Prefect."""

    retention: RetentionConfig = RetentionConfig()
    """Which checkpoints stay on disk."""

    @model_validator(mode="after")
    def _evidence_exists(self) -> Self:
        if self.consensus.reward.evidence == "probability" and self.verdict.mode == "free":
            raise ValueError(
                "consensus.reward.evidence is 'probability' and verdict.mode is 'free', expected 'constrained': only "
                "constrained verdicts have exact probabilities. Set evidence to 'votes' for free ones"
            )
        return self
