"""The JSON schema of a configuration file, for editors. Pure."""

from __future__ import annotations

from typing import Any

from . import types
from .options import Option
from .tree import ROOT, Branch, Constant, Items, Node, Pairs, Texts, takes_list

_NUMBER = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+$"}]}


def schema() -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of moffett-device-plugin",
        **_of(ROOT),
        "required": ["version"],
    }


def _of(node: Node) -> dict[str, Any]:
    match node:
        case Branch(keys=keys):
            form: dict[str, Any] = {
                "type": ["object", "null"] if node is not ROOT else "object",
                "properties": {key: _of(below) for key, below in keys.items()},
                "additionalProperties": False,
            }
            if "match" in keys:
                form["required"] = ["match"]
        case Items(each=each):
            form = {"type": ["array", "null"], "items": _of(each) | {"type": "object"}}
        case Texts(type=type):
            one = _NUMBER if type == "integer" else types.TEXT.schema
            form = _or_nothing({"anyOf": [one, {"type": "array", "items": one}]})
        case Pairs():
            texts = {"type": ["string", "number", "boolean", "null"]}
            form = {"type": ["object", "null"], "additionalProperties": texts}
        case Constant(value=value):
            form = {"const": value}
        case Option():
            return _of_option(node)
    return form | ({"description": node.help} if node.help else {})


def _of_option(option: Option) -> dict[str, Any]:
    form = dict(option.type.schema)
    if takes_list(option) and form.get("type") == "array":
        form = {"anyOf": [form["items"], form]}
    form = _or_nothing(form)
    if option.default:
        form["default"] = _as_json(option)
    return form | {"description": f"{option.help} [{option.flag}, {option.env}]"}


def _or_nothing(form: dict[str, Any]) -> dict[str, Any]:
    """A key without a value says nothing."""
    return {"anyOf": [*form.get("anyOf", [form]), {"enum": [None, ""]}]}


def _as_json(option: Option) -> Any:
    """The default as the file would have it."""
    if option.type is types.SWITCH:
        return option.default in types.TRUE
    match types.number_of(option.type):
        case "integer":
            return int(option.default)
        case "number":
            number = float(option.default)
            return int(number) if number.is_integer() else number
    return option.default
