"""A report as one HTML file that needs nothing else: no script, style, font or picture from elsewhere.

Texts are escaped by the template (autoescape). A policy in the page (Content-Security-Policy) allows the one script and
the one style sheet that are in it, by their hashes, and nothing else: a text that got past the escaping would not run.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from knowrl_core.report import around, charts, overlay, rows
from knowrl_core.report.gather import Report
from knowrl_core.report.scale import number
from knowrl_core.report.svg import draw, swatch

TEMPLATES: Final = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """The HTML text of a report."""
    style, script = _shipped("report.css"), _shipped("report.js")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            style=Markup(style),  # noqa: S704 - our own files
            script=Markup(script),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {
        "draw": draw,
        "swatch": swatch,
        "number": number,
        "reward_and_truth": charts.reward_and_truth,
        "set_charts": charts.set_charts,
        "comparison_charts": overlay.comparison_charts,
        **{name: getattr(module, name) for module in (rows, around) for name in module.__all__},
    }
    return environment


def _shipped(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """A source expression that allows an inline element of this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
