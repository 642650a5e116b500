"""A report as an artifact of a run's parent run in MLflow."""

from pathlib import Path

from knowrl_core.config import Config, redacted
from knowrl_core.storage.layout import RunPaths
from knowrl_core.storage.run_file import RunFile
from tasks.tracking import set_environment, tracking_uri


def attach(config: Config, paths: RunPaths, file: Path) -> str | None:
    """Log a file to a run's parent run; returns what went wrong, None if nothing did.

    A run that was never logged is not made here: `knowrl resume` logs it as a whole.

    Args:
        config: The run's config.
        paths: The run.
        file: The report.
    """
    uri = tracking_uri(config, paths.root)
    set_environment()
    try:
        from tasks.mlflow_log import attach_to  # noqa: PLC0415 - a failure to load MLflow is one more

        if attach_to(uri, config.tracking.experiment, RunFile.read(paths).run_id, file):
            return None
    except Exception as error:
        return (
            f"MLflow ({redacted(uri)}) does not take the report: {type(error).__name__}: {redacted(str(error)[:200])}"
        )
    return f"MLflow ({redacted(uri)}) does not know run {paths.name}; `knowrl resume` logs it, then report again"
