"""Prompts: template files, and the views in which a verdict is asked."""

from knowrl_core.prompts.load import Prompts, VerdictMode, load_prompts, verdict_variables
from knowrl_core.prompts.template import Template
from knowrl_core.prompts.views import VIEWS, View, check_views

__all__ = ["VIEWS", "Prompts", "Template", "VerdictMode", "View", "check_views", "load_prompts", "verdict_variables"]
