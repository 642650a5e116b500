"""Labelled tasks that a run starts from: what one is, how files of them are read and checked."""

from typing import TYPE_CHECKING, Any

from knowrl_core.seeds.load import load_seed_file, load_seeds
from knowrl_core.seeds.model import SeedTask
from knowrl_core.seeds.problems import Problem, SeedError

if TYPE_CHECKING:
    from knowrl_core.seeds.check import SeedReport, check_files

__all__ = [
    "Problem",
    "SeedError",
    "SeedReport",
    "SeedTask",
    "check_files",
    "load_seed_file",
    "load_seeds",
]


def __getattr__(name: str) -> Any:
    """Import the checker when it is first used: scikit-learn and SciPy would cost every command seconds."""
    if name not in {"SeedReport", "check_files"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from knowrl_core.seeds import check  # noqa: PLC0415

    return getattr(check, name)
