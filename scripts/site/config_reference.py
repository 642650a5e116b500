"""The page of all config fields, from the JSON schema of the config models."""

import json
from typing import Any

from knowrl_core.config import Config, load_config
from knowrl_core.config.load import profiles

Schema = dict[str, Any]

_INTRO = """# Configuration

All fields, as `knowrl_core/config/` declares them. A config is a YAML file (`--config FILE`, or the name of a
profile), and single fields are overridden by `--set SECTION.FIELD=VALUE`; the value is read as YAML. A file holds only
what differs from the defaults below, or from another file: with `base: cpu` or `base: ../other.yaml` at its top it
builds on a profile, or on a file by its path from there. Unknown keys, other types and values out of bounds are refused
before anything starts, as is what contradicts another field; the message names file and line, field, value, and what is
allowed.
"""

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minItems": "at least {} items",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matches `{}`",
}
_TYPES = {"integer": "integer", "number": "number", "boolean": "`true` or `false`", "string": "text", "null": "`null`"}


def config_page() -> str:
    """The page as Markdown."""
    schema = Config.model_json_schema()
    parts = [_INTRO, _profiles_table()]
    for name in schema["properties"]:
        parts += _section(name, _resolved(schema["properties"][name], schema), schema, depth=2)
    return "\n".join(parts)


def _section(path: str, section: Schema, schema: Schema, depth: int) -> list[str]:
    below = []
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in section["properties"].items():
        full = f"{path}.{name}"
        found = _resolved(field, schema)
        if "properties" in found:
            below += _section(full, {**found, "default": field.get("default")}, schema, depth + 1)
            continue
        rows.append(
            f"| {_anchored(full, name)} | {_type(found, schema)} | {_default(name, section, field)} "
            f"| {_text(field.get('description', ''))} |"
        )
        item = _resolved(found.get("items", {}), schema)
        if "properties" in item:  # a list of sections
            below += _section(f"{full}[]", item, schema, depth + 1)
    heading = [f"{'#' * depth} {path} {{ #{path.removesuffix('[]')}{'-items' if path.endswith('[]') else ''} }}", "",
               _text(section.get("description", "")), ""]  # fmt: skip
    return [*heading, *([*rows, ""] if len(rows) > 2 else []), *below]


def _default(name: str, section: Schema, field: Schema) -> str:
    """A section's own default (such as other sampling for verdicts) counts more than that of its class."""
    own = section.get("default") or {}
    if name in own:
        return _value(own[name])
    return _value(field["default"]) if "default" in field else "required"


def _resolved(field: Schema, schema: Schema) -> Schema:
    if "$ref" not in field:
        return field
    return {**schema["$defs"][field["$ref"].rpartition("/")[2]], "default": field.get("default")}


def _type(field: Schema, schema: Schema) -> str:
    if "anyOf" in field:
        return " or ".join(_type(option, schema) for option in field["anyOf"])
    if "enum" in field:
        return "one of " + ", ".join(f"`{item}`" for item in field["enum"])
    kind = field.get("type")
    if kind == "array":
        if "prefixItems" in field:
            return f"list of {len(field['prefixItems'])}: " + "; ".join(_type(i, schema) for i in field["prefixItems"])
        item = _resolved(field["items"], schema)
        base = "list of sections (below)" if "properties" in item else f"list of {_type(item, schema)}"
    else:
        base = _TYPES[str(kind)]
    if field.get("minLength") == 1:
        base, field = f"{base}, not empty", {key: value for key, value in field.items() if key != "minLength"}
    bounds = [text.format(_cell(f"{field[key]:,}" if isinstance(field[key], int) and key != "pattern" else field[key]))
              for key, text in _BOUNDS.items() if key in field]  # fmt: skip
    return ", ".join([base, *bounds])


def _anchored(full: str, name: str) -> str:
    return f'<a id="{full.replace("[]", "")}"></a>`{name}`'


def _value(value: Any) -> str:
    return f"`{_cell(json.dumps(value))}`" if not isinstance(value, str) else f"`{_cell(value)}`"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")


def _text(docstring: str) -> str:
    """A docstring as one line of a table."""
    return " ".join(docstring.split()).replace("``", "`").replace("|", "\\|")


def _profiles_table() -> str:
    """What each profile sets, as far as it differs from the defaults."""
    defaults = _leaves(Config().model_dump(mode="json"))
    names = profiles()
    found = {name: _leaves(load_config(name).model_dump(mode="json")) for name in names}
    differing = [key for key in defaults if any(found[name].get(key) != defaults[key] for name in names)]
    lines = ["## Profiles", "", "The files in `configs/`, and what they set. A dash stands for the default.", ""]
    lines += [f"| field | default | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (len(names) + 2) + "|"]
    for key in differing:
        cells = [_value(found[name][key]) if found[name][key] != defaults[key] else "-" for name in names]
        lines.append(f"| [`{key}`](#{key}) | {_value(defaults[key])} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _leaves(data: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= _leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found
