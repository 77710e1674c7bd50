"""The options of a config as `fleet-rcnn options` lists them: as text, as JSON, and as a JSON Schema for editors."""

import textwrap
import typing
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass

from detector.config.aliases import HABITS, OLD_NAMES
from detector.config.fields import AUTO
from detector.config.options import all_options
from detector.config.parsing import allowed_values, did_you_mean
from detector.config.schema import Config
from detector.config.yaml_files import dump_value
from detector.errors import BadInput

DRAFT = "http://json-schema.org/draft-07/schema#"  # the newest that YAML editors support
SCALARS = ["string", "number", "boolean"]          # what YAML makes of an unquoted text
BASE = {"description": "a config to start from: a file, relative to this one, or a config that ships with the package, "
                       "such as custom/bccd", "type": "string"}


def select_options(prefix: str) -> dict[str, Field]:
    """Returns the options of a section, such as `optim`, one option, or those of this name in any section.

    Args:
        prefix: empty: all options. It may be an old name of an option, or the name in another tool.

    Raises:
        BadInput: there is none, with the one that was probably meant.
    """
    options = all_options()
    path = OLD_NAMES.get(prefix, HABITS.get(prefix, prefix)).rstrip(".")
    selected = {name: field for name, field in options.items() if f"{name}.".startswith(f"{path}.") or not path}
    selected = selected or {name: field for name, field in options.items() if path in name.rpartition(".")[2]}
    if not selected:
        known = sorted({part for name in options for part in (name, *name.rpartition(".")[::2])})
        raise BadInput(f"options {prefix}: no option or section has this name{did_you_mean(prefix, known)}. "
                       "`fleet-rcnn options` lists all")
    return selected


def default_of(field: Field):
    """Returns the default of an option, `auto` where the run finds the value."""
    return "auto" if field.metadata["auto"] and field.default in (AUTO, (AUTO,)) else field.default


def options_as_text(options: Mapping[str, Field], width: int = 0) -> str:
    """Returns each option as key=value with its default, as it is typed, and below it what it means.

    Args:
        width: columns of the terminal; 0: one line for each meaning, however long.
    """
    lines = []
    for path, field in options.items():
        allowed = allowed_values(field.metadata)
        about = field.metadata["description"] + (f" [{allowed}]" if allowed else "")
        lines.append(f"{path}={dump_value(default_of(field))}")
        wrapped = textwrap.wrap(about, width - 4 if width else len(about), break_on_hyphens=False)
        lines += [f"    {line}" for line in wrapped]
    return "\n".join(lines)


def options_as_records(options: Mapping[str, Field]) -> list[dict]:
    """Returns each option as a dict for JSON: option, default, description, and what is allowed, as in the schema."""
    kinds = kinds_of(Config)
    return [{"option": path, "default": plain_default(field), "description": field.metadata["description"],
             "allowed": allowed_schema(kinds[path], field)} for path, field in options.items()]


def kinds_of(kind: type, path: str = "") -> dict[str, type]:
    """Returns the type of each option by its path."""
    kinds: dict[str, type] = {}
    for name, inner in typing.get_type_hints(kind).items():
        kinds.update(kinds_of(inner, f"{path}{name}.") if is_dataclass(inner) else {path + name: inner})
    return kinds


def plain_default(field: Field):
    """Returns the default of an option as JSON has it."""
    default = default_of(field)
    return list(default) if isinstance(default, tuple) else default


def config_schema(kind: type = Config) -> dict:
    """Returns the JSON Schema of a config file, or of a section: names, meanings, defaults, allowed values.

    An option that does not exist is a mistake. A list may be written as its only item, as in the config.
    """
    types, properties = typing.get_type_hints(kind), {}
    for field in fields(kind):
        properties[field.name] = config_schema(types[field.name]) if is_dataclass(types[field.name]) else {
            "description": field.metadata["description"], "default": plain_default(field),
            **allowed_schema(types[field.name], field)}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if kind is Config:
        schema["properties"] = {"base": BASE, **properties}
        return {"$schema": DRAFT, "title": "config of Fleet R-CNN", **schema}
    return schema


def allowed_schema(kind: type, field: Field) -> dict:
    """Returns the JSON Schema of the values of an option."""
    values = values_of(kind, field)
    if field.metadata["auto"]:
        values = [*values, {"const": "auto"}]
    return values[0] if len(values) == 1 else {"anyOf": values}


def values_of(kind: type, field: Field) -> list[dict]:
    """Returns the JSON Schemas that a value may have one of: a list may be written as its only item, or be empty."""
    if typing.get_origin(kind) is not tuple:
        return [item_schema(kind, field)]
    items = values_of(typing.get_args(kind)[0], field)
    return [*items, {"type": "array", "items": items[0] if len(items) == 1 else {"anyOf": items}}, {"type": "null"}]


def item_schema(kind: type, field: Field) -> dict:
    """Returns the JSON Schema of one value: of an option, or an item of its list."""
    metadata = field.metadata
    if kind is str:
        names = list(metadata["choices"])
        if names and not metadata["table"]:
            return {"enum": names}
        return {"anyOf": [{"enum": names}, {"type": "string"}]} if names else {"type": [*SCALARS, "null"]}
    bounds = {"minimum": metadata["low"], "maximum": metadata["high"]}
    return {"type": {int: "integer", float: "number", bool: "boolean"}[kind],
            **{name: bound for name, bound in bounds.items() if bound is not None}}
