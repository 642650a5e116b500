"""Config of where and how a run happens: run, model, files, engine, tracking, orchestration."""

import re
import unicodedata
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from knowrl_core.config.base import NonNegativeInt, PositiveInt, Seconds, Section

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class RunConfig(Section):
    """One named pipeline execution and the directory that it owns."""

    name: Annotated[str, Field(json_schema_extra={"pattern": f"^{RUN_NAME.pattern}$"})] = "cpu"
    """Name of the run and of its directory: letters, digits, dot, dash and underscore, at most 64."""

    root: Annotated[str, Field(min_length=1)] = "runs"
    """Artifact root: the folder that holds all runs, or ``s3://BUCKET/PREFIX``. ``~`` is expanded; relative paths start
    at the current folder."""

    iterations: Annotated[int, Field(ge=0, le=10_000)] = 30
    """Iterations after iteration 0, the evaluation of the untouched model."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Every random stream of the run derives from it."""

    @field_validator("root")
    @classmethod
    def _root_is_a_path(cls, value: str) -> str:
        if any(unicodedata.category(char) == "Cc" for char in value):
            raise ValueError("expected a path without control characters")
        return value

    @field_validator("name")
    @classmethod
    def _name_is_one_folder(cls, value: str) -> str:
        if not RUN_NAME.fullmatch(value) or value.endswith("."):
            raise ValueError(
                "expected 1 to 64 letters, digits, '.', '-' or '_', beginning with a letter or digit (it becomes a "
                "folder name)"
            )
        return value


class ModelConfig(Section):
    """The policy's starting point, which is also the reference."""

    path: Annotated[str, Field(min_length=1)] = "smollm2-135m-instruct"
    """A local folder, a Hub id, or an alias (``smollm2-135m-instruct``, ``tiny-random``). Only safetensors are
    loaded and remote code is never run."""

    revision: str | None = None
    """Hub revision (branch, tag or commit) when ``path`` is a Hub id."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model lives; ``auto`` takes CUDA if there is one."""


class FilesConfig(Section):
    """Seed and probe files; relative paths start at the current folder, ``builtin`` means the files that ship."""

    feasible: str = "builtin"
    """Verified feasible seeds (JSON lines)."""

    infeasible: str = "builtin"
    """Verified infeasible seeds (JSON lines)."""

    probe: str = "builtin"
    """Labelled tasks that no stage trains on (JSON lines)."""


class PromptsConfig(Section):
    """Prompt templates; ``builtin`` or a path to a file of one's own. Their hash stands in the lineage."""

    introspect_feasible: str = "builtin"
    """Asks for tasks that the model believes feasible for itself."""

    introspect_infeasible: str = "builtin"
    """Asks for tasks that the model believes infeasible for itself."""

    verdict_constrained: str = "builtin"
    """Asks for one of the two labels."""

    verdict_free: str = "builtin"
    """Asks for short reasoning and then a verdict."""


class VllmConfig(Section):
    """Engine ``vllm``: servers that run already, or one that the pipeline starts in another Python environment."""

    urls: tuple[Annotated[str, Field(pattern=r"^https?://[^/@\s]+(/[^@\s]*)?$")], ...] = ()
    """Addresses of servers that others run, such as ``http://gpu1:8000``; requests are shared among them. Empty: the
    pipeline starts one. The environment variable ``KNOWRL_VLLM_API_KEY`` holds their key, if they want one."""

    python: Annotated[str, Field(min_length=1)] = ".venv-vllm/bin/python"
    """Interpreter of the environment that holds vLLM (``make vllm`` builds this one)."""

    args: tuple[str, ...] = ()
    """Further arguments of ``vllm serve``, such as ``[--tensor-parallel-size, "2"]``."""

    concurrency: Annotated[int, Field(ge=1, le=4096)] = 64
    """Requests at a time on each server."""

    start_timeout: Seconds = 900.0
    """Seconds that the pipeline's own server has to answer after its start."""

    request_timeout: Seconds = 600.0
    """Seconds that one request may take."""

    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """Further attempts of a request that a server failed to answer."""

    verify: bool = True
    """Compare what is served with the checkpoint after each change of weights (a forward pass of it on the CPU)."""


class EngineConfig(Section):
    """What generates text."""

    kind: Literal["transformers", "vllm"] = "transformers"
    """Generation engine."""

    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of generation. ``auto``: bf16 where the processor has it natively, else fp32."""

    threads: NonNegativeInt = 0
    """CPU threads of the model worker; 0 means one a physical core. The same number gives the same bytes."""

    token_budget: Annotated[int, Field(ge=64, le=16_777_216)] = 32_768
    """Most tokens (padding included) in one batch of sequences."""

    compile: bool = False
    """``torch.compile`` for feed-forward parts and norms in engine ``transformers``; needs a C++ compiler on the CPU.
    Answers differ from uncompiled ones by float noise. The first batch takes some ten seconds more."""

    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Model workers that sample and score side by side, each with the whole model and, if there are GPUs, a device of
    its own. The update runs in one. With ``threads`` 0 they divide the cores."""

    shard: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Most requests that a worker takes at a time. Answers depend on it by float noise, but not on ``workers``."""

    warm: bool = True
    """Keep the model worker alive from stage to stage. Off: a new process for each stage that holds a model."""

    vllm: VllmConfig = VllmConfig()
    """Engine ``vllm``."""

    def arithmetic(self) -> dict[str, Any]:
        """What answers depend on beside batch sizes."""
        return self.model_dump(mode="json", include={"kind", "dtype", "threads", "compile"})

    @model_validator(mode="after")
    def _one_worker_for_vllm(self) -> Self:
        if self.kind == "vllm" and self.workers > 1:
            raise ValueError(
                f"workers is {self.workers} with kind vllm, expected 1: name several servers in vllm.urls, or let one "
                "use several devices (vllm.args: [--data-parallel-size, ...])"
            )
        return self


class TrackingConfig(Section):
    """MLflow."""

    enabled: bool = True
    """Log to MLflow. A tracking failure never fails a stage."""

    uri: str = "auto"
    """Tracking URI. ``auto``: ``MLFLOW_TRACKING_URI`` if it is set, else a SQLite file in the artifact root."""

    @field_validator("uri")
    @classmethod
    def _uri_holds_no_password(cls, value: str) -> str:
        if re.match(r"[A-Za-z0-9+.-]+://[^/@]*:[^/@]*@", value):
            raise ValueError(
                "expected a URI without a password, since the config is kept in run.json, Prefect and MLflow; put it "
                "into MLFLOW_TRACKING_URI or MLFLOW_TRACKING_PASSWORD"
            )
        return value

    experiment: Annotated[str, Field(min_length=1, max_length=200)] = "knowrl"
    """MLflow experiment."""

    registry: Literal["none", "reference", "upload"] = "reference"
    """The best checkpoint in MLflow's model registry, once the run has ended. ``reference``: a card that says where the
    checkpoint is. ``upload``: its files as well, which may be gigabytes."""

    artifact_megabytes: Annotated[float, Field(ge=0.0, le=100_000.0)] = 10.0
    """Largest table that is logged as an artifact of its iteration, in megabytes; larger ones stay in the run
    directory only."""

    system_metrics_seconds: Annotated[float, Field(ge=0.0, le=86_400.0)] = 60.0
    """Seconds between two points of the system metrics (processor, memory, GPUs); 0 for none."""


class OrchestrationConfig(Section):
    """Prefect."""

    stage_timeout: Seconds = 86_400.0
    """Longest time a stage may take, in seconds; then its model worker is ended and the stage fails."""

    retries: Annotated[int, Field(ge=0, le=10)] = 1
    """Retries of a stage whose model worker died (for example killed for memory). Other errors are never retried: they
    would only repeat."""

    retry_delay: Annotated[float, Field(ge=0.0, le=3_600.0)] = 5.0
    """Seconds before such a retry."""


class RetentionConfig(Section):
    """Which checkpoints stay on disk. A pruned one is recorded as pruned; everything else is kept."""

    keep_last: PositiveInt = 2
    """Newest checkpoints kept."""

    keep_best: bool = True
    """Keep the checkpoint with the best balanced accuracy on the probe."""

    keep_every: NonNegativeInt = 0
    """Keep the checkpoint of every n-th iteration; 0 keeps none for that reason."""
