"""Check a template before any work is done with it."""

from collections.abc import Collection
from typing import Final

from jinja2 import TemplateSyntaxError, meta, nodes

from knowrl_core.errors import InputError
from knowrl_core.prompts.template import Part, Template, compile_part, environment

LOADING: Final = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
"""A template is one file: its hash must stand for all of its text."""


def check_template(template: Template, *, allowed: Collection[str], required: Collection[str]) -> None:
    """Check syntax and variables of a template.

    Args:
        template: The template.
        allowed: Variables that it may use.
        required: Variables of these that it must use.

    Raises:
        InputError: It is wrong; names file and line, and what is allowed.
    """
    used: set[str] = set()
    for part in template.parts:
        used |= _variables(template, part, allowed)
    missing = [name for name in required if name not in used]
    if missing:
        raise InputError(
            f"{template.source}: the variable {missing[0]!r} is not used, expected {{{{ {missing[0]} }}}} in a turn",
            hint=f"Required in {template.name}: {', '.join(required)}. Allowed: {', '.join(sorted(allowed))}.",
        )


def _variables(template: Template, part: Part, allowed: Collection[str]) -> set[str]:
    try:
        tree = environment().parse(part.text)
        compile_part(part.text)  # finds unknown filters and tests
    except TemplateSyntaxError as exc:
        raise InputError(
            f"{template.source}:{part.line + exc.lineno - 1}: {exc.message}, expected valid Jinja",
            hint="Fix the template; {{ name }} inserts a variable, {% for ... %} repeats.",
        ) from None
    except RecursionError:
        raise InputError(
            f"{template.source}:{part.line}: the {part.role} turn is nested too deeply, expected a plain template"
        ) from None
    for node in tree.find_all(LOADING):
        raise InputError(
            f"{template.source}:{part.line + node.lineno - 1}: loads another template, expected one file",
            hint="Copy the other template's text into this file.",
        )
    used = meta.find_undeclared_variables(tree)
    for name in sorted(used.difference(allowed)):
        lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == name and node.ctx == "load"]
        raise InputError(
            f"{template.source}:{part.line + min(lines, default=1) - 1}: unknown variable {name!r}, "
            f"expected one of {', '.join(sorted(allowed))}",
            hint=f"Correct the name in the template of {template.name}.",
        )
    return used
