"""Paths of a config made absolute, so that they mean the same wherever the run is resumed."""

from pathlib import Path

from knowrl_core.config.model import Config
from knowrl_core.places import expanded

_BUILTIN = "builtin"


def anchored(config: Config, folder: Path | None = None) -> Config:
    """The config with absolute paths.

    Args:
        config: Config whose relative paths start at ``folder``.
        folder: The current folder if None.
    """
    base = folder or Path.cwd()
    data = config.model_dump(mode="json")

    def absolute(value: str) -> str:
        return str(base / expanded(value))

    if "://" not in data["run"]["root"]:
        data["run"]["root"] = absolute(data["run"]["root"])
    for section in ("files", "prompts"):
        data[section] = {key: value if value == _BUILTIN else absolute(value) for key, value in data[section].items()}
    for item in data["evaluation"]["benchmarks"]:
        item["path"] = item["path"] and absolute(item["path"])
    for name in ("hostfile", "config"):
        value = data["rl"]["deepspeed"][name]
        data["rl"]["deepspeed"][name] = value and absolute(value)
    if _is_local(data["model"]["path"], base):
        data["model"]["path"] = absolute(data["model"]["path"])
    return Config.model_validate(data)


def _is_local(model: str, base: Path) -> bool:
    """Whether a model path means a folder here: it is written as one, or one of that name exists."""
    return model.startswith(("./", "../", "~", "/")) or ("/" in model and (base / model).is_dir())
