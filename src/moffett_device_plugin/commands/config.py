"""`config`: checks a configuration file, shows what holds on a node, prints the schema."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import ConfigurationError
from ..settings.options import (
    CONFIG_OPTION,
    FILE_OPTIONS,
    NODE_NAME,
    RESOURCE_OPTIONS,
    Option,
    Parser,
    Values,
    add_options,
)

if TYPE_CHECKING:
    from ..resources.pools import Resource
    from ..settings.sections import Part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, prog=parser.prog, parser_class=Parser
    )
    check = actions.add_parser("check", help="whether a file is valid, for every node")
    check.add_argument("file", metavar="FILE", help="the configuration file")
    show = actions.add_parser("show", help="what holds on a node, and where each value is from")
    show.add_argument(
        "--node-label", action="append", metavar="KEY=VALUE", default=[],
        help="a label of the node to show it for (repeatable)",
    )  # fmt: skip
    add_options(show, (CONFIG_OPTION, *RESOURCE_OPTIONS, *FILE_OPTIONS))
    actions.add_parser("schema", help="the JSON schema of the file, for editors")
    actions.add_parser("reference", help="every setting, as a table in Markdown")


def run(values: Values, arguments: argparse.Namespace) -> int:
    match arguments.action:
        case "check":
            return _check(Path(arguments.file), values)
        case "show":
            return _show(values, arguments.node_label)
        case "reference":
            from ..settings.reference import reference

            print(reference(), end="")
            return 0
        case _:
            from ..settings.schema import schema

            print(json.dumps(schema(), indent=2))
            return 0


def _check(path: Path, values: Values) -> int:
    from ..settings.load import read
    from ..settings.sections import node_sections

    configuration = read(path)
    # What this machine's environment says is not what the file is checked for.
    configuration.check(Values(argparse.Namespace(), {}, here=False))
    sections = len(node_sections(configuration.root, configuration.file))
    print(f"{path}: valid" + (f", {sections} of its sections for some nodes" if sections else ""))
    return 0


def _show(values: Values, labels: list[str]) -> int:
    from ..settings.load import read
    from ..settings.sections import NodeFacts
    from ..settings.settings import serve_settings

    values = values.over(None, here=False)
    path = values[CONFIG_OPTION]
    if path is not None:
        configuration = read(path)
        configuration.check(values)
        node = NodeFacts(values[NODE_NAME], dict(_label(text) for text in labels))
        values = configuration.values(values, node)
    for line in _lines(values, serve_settings(values).plugin_config.resources):
        print(line)
    return 0


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigurationError("--node-label", text, "use KEY=VALUE")
    return key, value


def _section_of(option: Option) -> str:
    return option.path.rpartition(".")[0]


def _lines(values: Values, resources: tuple[Resource, ...]) -> Iterator[str]:
    """The file that would say all this, with a comment on where each value is from."""
    from ..settings.sections import Part

    yield "version: v1"
    section = ""
    for option in sorted(FILE_OPTIONS, key=_section_of):
        above, _, key = option.path.rpartition(".")
        if above != section:
            section = above
            yield f"{section}:"
        given = values.given(option)
        yield from _entry(option, "  " if above else "", key, given.text, given.origin)
    yield "resources:"
    part = values.file if isinstance(values.file, Part) else None
    items = (part.resources if part else ()) or (None,)
    for item, resource in zip(items, resources, strict=True):
        yield from _resource_lines(values, item, resource)


def _resource_lines(values: Values, item: Part | None, resource: Resource) -> Iterator[str]:
    from ..settings.settings import SELECTOR_KEYS

    start, section = "- ", ""
    for option in RESOURCE_OPTIONS:
        above, _, key = option.path.rpartition(".")
        if above != section:
            section = above
            yield f"  {above}:"
        own = None if values.override(option) or item is None else item.get(option.path)
        given = own or values.given(option)
        text, origin = given.text, given.origin
        if option.path == "name":
            origin += f"; advertised as {resource}"
        for line in _entry(option, "    " if above else "  ", key, text, origin):
            yield start + line[2:] if start == "- " else line
            start = ""
    if item is None:
        return
    for name in ("select", "exclude"):
        found = {key: item.several(f"{name}.{key}") for key in SELECTOR_KEYS}
        if any(found.values()):
            yield f"  {name}:"
        for key, several in found.items():
            if several:
                texts = ", ".join(json.dumps(given.text) for given in several)
                yield f"    {key}: [{texts}]  # {several[0].origin}"


def _entry(option: Option, indent: str, key: str, text: str, origin: str) -> Iterator[str]:
    from ..settings.tree import takes_list, takes_mapping

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if takes_mapping(option) and parts:
        yield f"{indent}{key}:  # {origin}"
        for part in parts:
            rule, _, value = part.partition("=")
            yield f"{indent}  {rule}: {json.dumps(value)}"
        return
    if takes_list(option) or takes_mapping(option):
        shown = "[" + ", ".join(json.dumps(part) for part in parts) + "]" if parts else ""
    elif option.type.schema.get("type") in ("number", "integer", "boolean"):
        shown = text
    else:
        shown = json.dumps(text, ensure_ascii=False) if text else ""
    yield f"{indent}{key}:{' ' + shown if shown else ''}  # {origin}"
