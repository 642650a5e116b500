"""Load the templates that a config names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from knowrl_core.config.system import PromptsConfig
from knowrl_core.errors import InputError
from knowrl_core.labels import FEASIBLE, Label
from knowrl_core.places import expanded
from knowrl_core.prompts.check import check_template
from knowrl_core.prompts.template import MAX_BYTES, Template, parse_template
from knowrl_core.prompts.views import VIEWS, View

BUILTIN: Final = "builtin"
VerdictMode = Literal["constrained", "free"]

_FOLDER: Final = Path(__file__).resolve().parent / "templates"
_INTROSPECTION_SAMPLE: Final = {"shots": ("Add two numbers.", "Say hello."), "count": 5, "next_number": 3}


@dataclass(frozen=True, slots=True)
class Prompts:
    """All templates of a run, checked."""

    introspect_feasible: Template
    introspect_infeasible: Template
    verdict_constrained: Template
    verdict_free: Template

    def introspection(self, label: Label) -> Template:
        """The template that asks for tasks of a label."""
        return self.introspect_feasible if label == FEASIBLE else self.introspect_infeasible

    def verdict(self, mode: VerdictMode) -> Template:
        """The template that asks for a verdict."""
        return self.verdict_constrained if mode == "constrained" else self.verdict_free


def load_prompts(config: PromptsConfig) -> Prompts:
    """Load and check all four templates.

    Args:
        config: ``builtin`` or a path for each.

    Raises:
        InputError: A file is missing or wrong; names file, line and what is allowed.
    """
    views: list[Mapping[str, Any]] = [{"task": "Add two numbers.", **view.variables()} for view in VIEWS.values()]
    return Prompts(
        introspect_feasible=_load(config, "introspect_feasible", [_INTROSPECTION_SAMPLE], required=("shots",)),
        introspect_infeasible=_load(config, "introspect_infeasible", [_INTROSPECTION_SAMPLE], required=("shots",)),
        verdict_constrained=_load(config, "verdict_constrained", views, required=("task",)),
        verdict_free=_load(config, "verdict_free", views, required=("task",)),
    )


def verdict_variables(task: str, view: View) -> dict[str, str]:
    """Variables of a verdict prompt: the task's text and the view, and nothing that could tell its label."""
    return {"task": task, **view.variables()}


def _load(config: PromptsConfig, name: str, samples: list[Mapping[str, Any]], *, required: tuple[str, ...]) -> Template:
    setting = str(getattr(config, name))
    builtin = setting == BUILTIN
    source = f"{BUILTIN} {name}.jinja" if builtin else setting
    path = _FOLDER / f"{name}.jinja" if builtin else expanded(setting)
    template = parse_template(name, _read(path, f"prompts.{name}", source), source)
    check_template(template, allowed=tuple(samples[0]), required=required)
    for sample in samples:  # what the checks above cannot see, such as an unknown attribute, shows here
        template.render(**sample)
    return template


def _read(path: Path, field: str, source: str) -> bytes:
    hint = f"Set {field} to '{BUILTIN}' or to a template file of your own."
    try:
        if not path.is_file():  # a pipe or a device could block for ever
            what = "a folder" if path.is_dir() else "no such file"
            raise InputError(f"{field}: got {source!r}, which is {what}, expected a template file", hint=hint)
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        if isinstance(exc, InputError):
            raise
        reason = getattr(exc, "strerror", None) or str(exc)
        raise InputError(f"{field}: {source!r} cannot be read: {reason}, expected a template file", hint=hint) from None
