"""Config from a flow's parameters."""

from collections.abc import Mapping
from typing import Any

from flows.remote import check_config, check_profile
from knowrl_core.config import DEFAULT_PROFILE, Config, anchored, build_config, deep_merge, load_config


def fields_of(config: Config | None) -> dict[str, Any]:
    """The fields that a ``config`` parameter gives; those that it leaves to their defaults are not among them."""
    return config.model_dump(mode="json", exclude_unset=True) if config is not None else {}


def profile_of(profile: str | None) -> dict[str, Any]:
    """A profile as data; None is the default one.

    Raises:
        InputError: There is no such profile, or it lies where a flow run may not read.
    """
    return load_config(profile or DEFAULT_PROFILE, may_read=check_profile).model_dump(mode="json")


def overlaid(base: Mapping[str, Any], fields: Mapping[str, Any], source: str) -> Config:
    """A config with fields on top, and its paths made absolute.

    Args:
        base: A whole config as data.
        fields: Those that differ.
        source: Where they come from, for messages.

    Raises:
        InputError: A field is wrong, or names what a flow run may not.
    """
    config = anchored(build_config(deep_merge(base, fields), source=source))
    check_config(config)
    return config
