"""Config from a flow's parameters."""

from collections.abc import Mapping
from typing import Any

from knowrl_core.config import Config, anchored, build_config, deep_merge


def fields_of(config: Config | None) -> dict[str, Any]:
    """The fields that a ``config`` parameter gives; those that it leaves to their defaults are not among them."""
    return config.model_dump(mode="json", exclude_unset=True) if config is not None else {}


def overlaid(base: Mapping[str, Any], fields: Mapping[str, Any], source: str) -> Config:
    """A config with fields on top, and its paths made absolute.

    Args:
        base: A whole config as data.
        fields: Those that differ.
        source: Where they come from, for messages.

    Raises:
        InputError: A field is wrong.
    """
    return anchored(build_config(deep_merge(base, fields), source=source))
